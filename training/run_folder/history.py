"""What a run has measured so far: past epochs, the present one, and which snapshot is best."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.run_folder.folder import RunFolder
from training.run_folder.json_file import read_object, typed
from training.run_folder.scores import ClassScore, Scores


@dataclass(frozen=True)
class EpochRecord:
    """Means over one epoch. The epoch's last step has a generator snapshot."""

    epoch: int
    step: int
    loss_g: float
    loss_d: float
    d_real: float
    d_fake: float
    images_per_second: float
    scores: Scores | None = None
    """Scores of that snapshot; None if it was not scored."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return vars(self) | {"scores": self.scores.to_dict() if self.scores else {}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The record that `to_dict` made `values` of. Ignores unknown keys.

        Raises:
            ValueError: for other values.
        """
        record: Self = typed(cls, {**values, "scores": values.get("scores") or None})
        if record.epoch < 1 or record.step < 1 or record.images_per_second <= 0:
            raise ValueError(f"there is no epoch {record.epoch} that ends at step {record.step}")
        return record


@dataclass
class History:
    """The measurements of a run. It consists of JSON values, as last.pt holds it."""

    epochs: list[EpochRecord] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    """Sums of the losses since the end of the last epoch, in the order of `StepMetrics`."""
    steps: int = 0
    """Number of steps in these sums."""
    seconds: float = 0.0
    """Seconds that these steps took."""
    divergences: list[str] = field(default_factory=list)
    """A message for each time that the run diverged and went back."""

    def add(self, losses: NDArray[np.float32], seconds: float) -> None:
        """Add the losses of some steps, (steps, 4), to the present epoch."""
        # One by one in float64, so that the sums do not depend on how many steps are added at once.
        rows = np.vstack([self.sums, losses.astype(np.float64)])
        self.sums = np.add.accumulate(rows)[-1].tolist()
        self.steps += len(losses)
        self.seconds += seconds

    def record_epoch(
        self, epoch: int, step: int, batch_size: int, scores: Scores | None, *, finished: bool
    ) -> EpochRecord:
        """Append the record of the present epoch, and return it.

        scores: those of its snapshot; None if it was not scored.
        finished: False if the run ends within the epoch; then the sums stay, for a resume.
        """
        loss_g, loss_d, d_real, d_fake = (total / self.steps for total in self.sums)
        speed = self.steps * batch_size / self.seconds
        record = EpochRecord(epoch, step, loss_g, loss_d, d_real, d_fake, speed, scores)
        self.epochs.append(record)
        if finished:
            self.sums, self.steps, self.seconds = [0.0] * 4, 0, 0.0
        return record

    def reopen_epoch(self, finished_epochs: int) -> None:
        """Drop the record of an unfinished epoch before continuing the epoch."""
        del self.epochs[finished_epochs:]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return vars(self) | {"epochs": [record.to_dict() for record in self.epochs]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The history that `to_dict` made `values` of.

        Raises:
            KeyError, ValueError: for other values.
        """
        epochs = [EpochRecord.from_dict(record) for record in values["epochs"]]
        history: Self = typed(cls, {**values, "epochs": []})
        history.epochs = epochs
        return history


@dataclass(frozen=True)
class Choice:
    """The snapshot that a rule chooses."""

    rule: str
    checkpoint: str
    """Path of the snapshot, relative to the run folder."""
    epoch: int
    step: int
    score: float
    """The value that the rule compares."""
    runner_up: dict[str, float] | None
    """Epoch, step and score of the second best."""
    why: str


@dataclass(frozen=True)
class Memory:
    """Distance of images from the nearest training image; a copied image has distance 0.

    Each is the median over 64 images, in grey levels (root mean square over the pixels).
    """

    generated: float
    real: float
    """For test images; without test images, for training images, not counting themselves."""


@dataclass(frozen=True)
class Best(Choice):
    """The content of best.json: the choice by the run's own rule, and what belongs to it."""

    choices: dict[str, Choice]
    """The choices by all rules."""
    final: dict[str, Scores] = field(default_factory=dict)
    """Scores of these choices on fresh noise; empty until the run has finished."""
    nearest: Memory | None = None
    classes: list[ClassScore] = field(default_factory=list)


def read_best(folder: RunFolder) -> Best:
    """Read best.json.

    Raises:
        OSError: if it is missing, or no file that can be read.
        ValueError: if it is damaged.
    """
    best: Best = typed(Best, read_object(folder.best))
    for rule, choice in [(best.rule, best), *best.choices.items()]:
        if rule != choice.rule:
            raise ValueError(f"{rule[:40]!r} is not {choice.rule[:40]!r}")
        if folder.path / choice.checkpoint != folder.checkpoint(choice.step):
            raise ValueError(f"{choice.checkpoint[:40]!r} is no snapshot of step {choice.step}")
        if not {"step", "score"} <= (choice.runner_up or {"step": 0, "score": 0}).keys():
            raise ValueError("runner_up has no step and score")
    if best.rule not in best.choices or (best.final and best.final.keys() != best.choices.keys()):
        raise ValueError("it has not the choices and scores of all rules")
    return best
