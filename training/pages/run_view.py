"""A run as its folder shows it, finished or not. No torch."""

import logging
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.config import ConfigError, TrainConfig
from training.records.metrics_file import COLUMNS, SoundLines
from training.run_folder.config_file import Facts, read_config, read_facts
from training.run_folder.folder import RunFolder
from training.run_folder.history import Best, Choice, EpochRecord, read_best
from training.run_folder.scores import Scores

_MOST_BYTES = 2**32  # of metrics.jsonl: thirty million iterations
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunView:
    """What a run folder holds at one moment."""

    folder: RunFolder
    config: TrainConfig
    facts: Facts
    steps: NDArray[np.int64]
    """Numbers of the recorded iterations, (n,)."""
    losses: NDArray[np.float64]
    """(n, 4), the columns `COLUMNS`."""
    epochs: list[EpochRecord]
    best: Best | None
    """The content of best.json; None before there is one."""
    lost: str = ""
    """Which records are lost, in words."""

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
        return bool(self.best and self.best.final)

    @property
    def choices(self) -> dict[str, Choice]:
        """The snapshot that each rule chooses."""
        return self.best.choices if self.best else {}

    @cached_property
    def scored(self) -> list[tuple[int, Scores]]:
        """The steps whose snapshots have scores, with these scores."""
        return [(record.step, record.scores) for record in self.epochs if record.scores]

    def scores_of(self, rule: str) -> Scores | None:
        """The scores of a rule's choice: on fresh noise if finished, else those it was chosen by.

        None if its snapshot was not scored.
        """
        if self.best and self.best.final:
            return self.best.final[rule]
        return dict(self.scored).get(self.choices[rule].step)

    def best_scores(self) -> Scores | None:
        """The scores of the choice by the run's own rule; None if there are none."""
        return self.scores_of(self.best.rule) if self.best else None

    def minutes(self) -> NDArray[np.float64]:
        """Minutes of training steps until the end of each epoch; scoring and saving not counted."""
        steps = np.array([0, *(record.step for record in self.epochs)])
        speeds = np.array([record.images_per_second for record in self.epochs])
        seconds = np.diff(steps) * self.config.recipe.batch_size / speeds
        return np.cumsum(seconds) / 60

    def minutes_at(self, step: int) -> float:
        """Minutes of training steps until a step."""
        steps = [0, *(record.step for record in self.epochs)]
        return float(np.interp(step, steps, [0.0, *self.minutes()]))

    def iterations_per_second(self) -> float:
        """The median over the epochs; NaN before the end of the first epoch."""
        speeds = [record.images_per_second for record in self.epochs]
        return float(np.median(speeds)) / self.config.recipe.batch_size if speeds else np.nan


def read_run(run_dir: Path) -> RunView:
    """Read a run folder. Damaged parts are left out, with a warning.

    Raises:
        ConfigError: if the folder holds no run, or if the run has recorded nothing yet.
    """
    config = read_config(run_dir)
    folder = RunFolder(run_dir)
    facts = read_facts(folder)
    best = _best(folder)  # Read before the metrics: the run writes the metrics first.
    steps, losses, lines = _records(folder)
    if not steps:
        found = "its records are damaged" if lines.damaged or best else "wait a few seconds"
        raise ConfigError(f"{run_dir} has recorded no iteration yet: {found}")
    lost = _lost(folder, best, steps, lines)
    if lost:
        _log.warning("%s: %s", folder.metrics, lost)
    if best and not best.final and best.step not in {record.step for record in lines.epochs}:
        best = None  # best.json is older than the metrics: the run has gone back
    table = np.frombuffer(losses).reshape(-1, len(COLUMNS))
    return RunView(folder, config, facts, np.array(steps), table, lines.epochs, best, lost)


def _best(folder: RunFolder) -> Best | None:
    try:
        return read_best(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = str(error.strerror)
    except ValueError as error:
        problem = f"it is damaged ({error}); a resume writes it again"
    _log.warning("%s is left out: %s", folder.best, problem)
    return None


def _records(folder: RunFolder) -> tuple["array[int]", "array[float]", SoundLines]:
    """The steps and their losses, row by row; instead of lost steps, the means of the epochs."""
    lines = SoundLines(folder.metrics, _MOST_BYTES)
    steps, losses = array("q"), array("d")
    try:
        for found in lines.iterations():
            steps.append(found.step)
            losses.extend(found.losses)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"{folder.metrics}: {error.strerror}") from None
    for record in lines.epochs if not steps else ():
        steps.append(record.step)
        losses.extend(getattr(record, name) for name in COLUMNS)
    return steps, losses, lines


def _lost(folder: RunFolder, best: Best | None, steps: Sequence[int], lines: SoundLines) -> str:
    """Which records are lost, in words."""
    last_step, last_epoch = steps[-1], lines.epochs[-1].epoch if lines.epochs else 0
    if best and best.final:  # the run has finished, and drew a grid at its last step
        last_step = max(last_step, best.step, *folder.grids_by_step())
        last_epoch = max(last_epoch, *(choice.epoch for choice in best.choices.values()))
    lost = {"iterations": (last_step, len(steps)), "epochs": (last_epoch, len(lines.epochs))}
    parts = [f"{n - kept:,} of {n:,} {what}" for what, (n, kept) in lost.items() if kept < n]
    return f"{' and '.join(parts)} are lost, as their lines are damaged" if parts else ""
