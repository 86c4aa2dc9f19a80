"""A run as its folder shows it, finished or not. No torch."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config import ConfigError, TrainConfig
from training.run_folder.config_file import read_config
from training.run_folder.folder import RunFolder
from training.run_folder.history import EpochRecord
from training.run_folder.scores import Scores

COLUMNS = ("loss_g", "loss_d", "d_real", "d_fake")
"""The columns of `RunView.losses`, by their names in metrics.jsonl."""


@dataclass(frozen=True)
class RunView:
    """What a run folder holds at one moment."""

    folder: RunFolder
    config: TrainConfig
    facts: dict[str, Any]
    """All of config.json."""
    steps: NDArray[np.int64]
    """Numbers of the recorded iterations, (n,)."""
    losses: NDArray[np.float64]
    """(n, 4), the columns `COLUMNS`."""
    epochs: list[EpochRecord]
    best: dict[str, Any]
    """The content of best.json; empty before there is one."""

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.path.resolve().name

    @property
    def step(self) -> int:
        """The last recorded iteration."""
        return int(self.steps[-1]) if len(self.steps) else 0

    @property
    def finished(self) -> bool:
        """Whether the run has finished, and so has scores on fresh noise."""
        return "final" in self.best

    @property
    def choices(self) -> dict[str, dict[str, Any]]:
        """The snapshot that each rule chooses."""
        choices: dict[str, dict[str, Any]] = self.best.get("choices", {})
        return choices

    @cached_property
    def scored(self) -> list[tuple[int, Scores]]:
        """The steps whose snapshots have scores, with these scores."""
        return [(record.step, record.scores) for record in self.epochs if record.scores]

    def scores_of(self, rule: str) -> Scores | None:
        """The scores of a rule's choice: on fresh noise if finished, else those it was chosen by.

        None if its snapshot was not scored.
        """
        if self.finished:
            return Scores.from_dict(self.best["final"][rule])
        return dict(self.scored).get(self.choices[rule]["step"])

    def best_scores(self) -> Scores | None:
        """The scores of the choice by the run's own rule; None if there are none."""
        return self.scores_of(self.best["rule"]) if self.best else None

    def minutes(self) -> NDArray[np.float64]:
        """Minutes of training steps until the end of each epoch; scoring and saving not counted."""
        steps = np.array([0, *(record.step for record in self.epochs)])
        speeds = np.array([record.images_per_second for record in self.epochs])
        seconds = np.diff(steps) * self.config.recipe.batch_size / speeds
        return np.cumsum(seconds) / 60

    def minutes_at(self, step: int) -> float:
        """Minutes of training steps until a step that ends an epoch."""
        return float(self.minutes()[[record.step for record in self.epochs].index(step)])

    def iterations_per_second(self) -> float:
        """The median over the epochs; NaN before the end of the first epoch."""
        speeds = [record.images_per_second for record in self.epochs]
        return float(np.median(speeds)) / self.config.recipe.batch_size if speeds else np.nan


def read_run(run_dir: Path) -> RunView:
    """Read a run folder.

    Raises:
        ConfigError: if the folder holds no run, or if the run has recorded nothing yet.
    """
    config = read_config(run_dir)
    folder = RunFolder(run_dir)
    facts = json.loads(folder.config.read_text("utf-8"))
    try:  # Read before the metrics: the run writes the metrics first.
        best = json.loads(folder.best.read_text("utf-8"))
    except FileNotFoundError:
        best = {}
    steps, losses, epochs = _read_metrics(folder.metrics)
    if not steps:
        raise ConfigError(f"{run_dir} has recorded no iteration yet: wait a few seconds")
    known = {record.step for record in epochs}
    if any(choice["step"] not in known for choice in best.get("choices", {}).values()):
        best = {}  # best.json is older than the metrics: the run has gone back
    return RunView(folder, config, facts, np.array(steps), np.array(losses), epochs, best)


def _read_metrics(path: Path) -> tuple[list[int], list[list[float]], list[EpochRecord]]:
    steps: list[int] = []
    losses: list[list[float]] = []
    epochs: list[EpochRecord] = []
    if not path.exists():
        return steps, losses, epochs
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # still being written
            record = json.loads(line)
            if record["kind"] == "iteration":
                steps.append(record["step"])
                losses.append([record[name] for name in COLUMNS])
            else:
                epochs.append(EpochRecord.from_dict(record))
    return steps, losses, epochs
