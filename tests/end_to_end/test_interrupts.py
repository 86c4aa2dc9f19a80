"""Ctrl-C while a command starts: one line, the exit code of a signal, and no traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inference.errors import end_at_interrupt, interruptible, reporting
from tests.support.files import ROOT

# A library that is interrupted as soon as it is imported, and makes another error of it.
LIBRARY = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except BaseException:
    raise ImportError("other") from None
"""
LINE = "stopped by SIGINT; what was saved is whole"


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("training.run", "argparse"),  # the first import of all
        ("training.run", "tyro"),
        ("training.run", "torch"),
        ("training.report", "tyro"),
        ("training.compare", "tyro"),
        ("export.run", "torch"),
        ("export.score", "numpy"),
        ("inference.run", "argparse"),
        ("inference.run", "numpy"),
        ("inference.run", "onnxruntime"),
        ("ganpack draw", "numpy"),
        ("ganpack report", "tyro"),
    ],
)
def test_an_interrupt_during_an_import_is_one_line(
    module: str, library: str, tiny_artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / f"{library}.py").write_text(LIBRARY)
    command = [sys.executable, "-m", *module.split()]
    if module == "training.run":
        command += ["--dataset", "digits", "--run-dir", str(tmp_path / "run")]
    elif module in {"export.score", "inference.run", "ganpack draw"}:
        command.append(str(tiny_artifact))
    ended = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert [line for line in ended.stderr.splitlines() if "run folder" not in line] == [LINE]
    assert ended.returncode == 130


def test_an_interrupt_of_the_work_removes_what_is_unfinished(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Here pytest's handler stands for that of a command, which raises KeyboardInterrupt too."""
    removed = []

    def work() -> int:
        try:
            with interruptible():
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            removed.append(True)
            raise ValueError("a library's own") from error
        return 0

    before = signal.getsignal(signal.SIGINT)
    assert reporting(work) == 130
    assert removed
    assert capsys.readouterr().err == f"{LINE}\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_command_ends_at_once_outside_its_work_and_raises_within() -> None:
    code = f"""
import signal, sys
sys.path.insert(0, {str(ROOT)!r})
from inference.errors import end_at_interrupt, interruptible
end_at_interrupt()
try:
    with interruptible():
        signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("cleaned up")
signal.raise_signal(signal.SIGINT)
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("cleaned up\n", f"{LINE}\n")
    assert ended.returncode == 130


def test_an_ignored_interrupt_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        end_at_interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
