"""A run as long as the exercise, with scores and files: how far it comes, and where its time goes.

python -m benchmarks.exercise --seconds 60 --json exercise.json
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.figures import device_named, write_figures
from training.engine.machine import describe_machine
from training.records.phases import in_words
from training.run_folder.config_file import read_seconds
from training.run_folder.folder import RunFolder

ITERATIONS = 187_500
"""The exercise's 200 epochs of 60,000 images in batches of 64."""
_SCORINGS = 11
_TINY = "--image-size 8 --latent-dim 10 --generator-dims 16 --discriminator-dims 16"
_SECONDS_TO_STOP = 20.0


@dataclass(frozen=True)
class ExerciseConfig:
    """What to train, and for how long."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    recipes: tuple[str, ...] = ("r3gan", "bce")
    iterations: int = ITERATIONS
    seconds: float | None = None
    """Stop each run after this many seconds, as Ctrl-C would; by default each runs to its end."""
    tiny: bool = False
    """Train networks of a few neurons, to check that this program works."""
    dataset: str = "mnist"
    data_dir: Path = Path("data")
    json: Path | None = None
    """File to write the figures to; rewritten after each run."""


def measure(config: ExerciseConfig) -> dict[str, Any]:
    """Measure everything; the figures as JSON values."""
    rows: dict[str, Any] = {}
    figures = {"machine": describe_machine(device_named(config.device)), "runs": rows}
    with tempfile.TemporaryDirectory() as folder:
        for recipe in config.recipes:
            rows[recipe] = _run(config, recipe, Path(folder) / recipe)
            print(_line(recipe, rows[recipe]), flush=True)
            write_figures(config.json, figures)
    return figures


def _run(config: ExerciseConfig, recipe: str, run_dir: Path) -> dict[str, Any]:
    options = {
        "--dataset": config.dataset,
        "--data-dir": config.data_dir,
        "--device": config.device,
        "--recipe": recipe,
        "--batch-size": 64,
        "--iterations": config.iterations,
        "--score-every": max(1, config.iterations // (_SCORINGS - 1)),
        "--run-dir": run_dir,
    }
    arguments = [str(part) for option in options.items() for part in option]
    if config.tiny:
        arguments += _TINY.split()
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "training.run", *arguments])
    try:
        process.wait(config.seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    seconds = read_seconds(RunFolder(run_dir))
    iterations = _iterations(run_dir)
    return {
        "exit_code": process.returncode,
        "iterations": iterations,
        "of": config.iterations,
        "wall_seconds": round(time.monotonic() - begin, 1),
        "seconds": seconds,
        "iterations_per_second": round(iterations / sum(seconds.values()), 1) if seconds else None,
    }


def _iterations(run_dir: Path) -> int:
    """The last recorded iteration of a run."""
    try:
        lines = RunFolder(run_dir).metrics.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-1])["step"]) if lines else 0


def _line(recipe: str, row: dict[str, Any]) -> str:
    text = f"{recipe}: {row['iterations']:,} of {row['of']:,} iterations in {row['wall_seconds']} s"
    if row["seconds"]:
        text += (
            f"; {row['iterations_per_second']} it/s over the whole run; {in_words(row['seconds'])}"
        )
    return text


def main() -> None:
    """Train and print; with --json, also write a file."""
    measure(tyro.cli(ExerciseConfig, prog="python -m benchmarks.exercise", description=__doc__))


if __name__ == "__main__":
    main()
