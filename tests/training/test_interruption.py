"""Signals that ask a run to stop."""

import signal

import pytest

from training.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_next_is_the_system_s(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    with Interruption() as interruption:
        assert interruption.number is None
        signal.raise_signal(number)
        assert interruption.number == number
        assert {signal.getsignal(each) for each in before} == {signal.SIG_DFL}
    assert {each: signal.getsignal(each) for each in before} == before
    assert capfd.readouterr().err == "\nstopping after this step; once more to stop at once\n"


def test_a_signal_is_noted_where_nobody_reads_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(number: int, content: bytes) -> int:
        raise BrokenPipeError

    with Interruption() as interruption, monkeypatch.context() as patch:
        patch.setattr("os.write", fail)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.number == signal.SIGTERM


def test_a_quiet_one_prints_nothing_and_an_ignored_signal_stays_ignored(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption(quiet=True) as interruption:
            signal.raise_signal(signal.SIGINT)
            assert interruption.number is None
            signal.raise_signal(signal.SIGTERM)
            assert interruption.number == signal.SIGTERM
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert capfd.readouterr().err == ""
