"""A run measures the time of its phases."""

import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.runs import TINY
from training.pages.report import write_report
from training.records.phases import PHASES, PhaseTimer, in_words
from training.run import main
from training.run_folder.config_file import read_seconds
from training.run_folder.folder import RunFolder
from training.train import train


class Clock:
    """A clock in place of `time.monotonic`, set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_each_moment_counts_to_one_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    timer = PhaseTimer(began=98.0)
    clock.now += 1
    with timer.phase("steps"):
        clock.now += 10
        with timer.phase("saves"):
            clock.now += 5
        clock.now += 0.5
        with suppress(ValueError), timer.phase("scores"):
            clock.now += 2
            raise ValueError
    clock.now += 0.25
    expected = {"start": 3.25, "steps": 10.5, "scores": 2.0, "saves": 5.0}
    assert timer.seconds() == expected
    assert list(timer.seconds()) == [name for name in PHASES if name in expected]
    timer.add({"steps": 1.5, "verdict": 1.0})
    assert timer.seconds() == expected | {"steps": 12.0, "verdict": 1.0}
    assert in_words(timer.seconds()) == (
        "23.2 s: steps 12.0, saves 5.0, start 3.2, scores 2.0, verdict 1.0"
    )


def test_the_phases_of_a_run_sum_to_its_wall_time(tmp_path: Path) -> None:
    began = time.monotonic()
    code = main([
        *["--dataset", "digits", "--data-dir", str(TINY.data.data_dir), "--image-size", "8"],
        *["--latent-dim", "10", "--generator-dims", "16", "--discriminator-dims", "8"],
        *["--device", "cpu", "--engine", "plain", "--iterations", "60", "--batch-size", "512"],
        *["--run-dir", str(tmp_path / "run")],
    ])  # fmt: skip
    wall = time.monotonic() - began
    assert code == 0
    seconds = read_seconds(RunFolder(tmp_path / "run"))
    named = {"steps", "records", "scores", "checkpoints", "saves", "samples", "average"}
    assert seconds.keys() >= named | {"start", "verdict", "report"}
    assert sum(seconds.values()) == pytest.approx(wall, rel=0.05)
    assert seconds.get("other", 0) < wall / 20


def test_a_resumed_run_counts_on(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    train(replace(TINY, epochs=2), run_dir)
    before = read_seconds(RunFolder(run_dir))
    began = time.monotonic()
    train(replace(TINY, epochs=4), run_dir, resume=True)
    wall = time.monotonic() - began
    after = read_seconds(RunFolder(run_dir))
    assert after["steps"] > before["steps"]
    assert sum(after.values()) == pytest.approx(sum(before.values()) + wall, rel=0.05)


def test_the_report_shows_the_phases(tiny_run: Path, tmp_path: Path) -> None:
    page = write_report(tiny_run, tmp_path / "report.html").read_text()
    assert "Where the time went" in page
    seconds = json.loads((tiny_run / "config.json").read_text())["seconds"]
    assert f"{sum(seconds.values()):,.1f} s" in page
