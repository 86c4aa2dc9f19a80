"""What a run has measured so far: means of past epochs, and sums of the present one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.run_folder.scores import Scores


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
        """The record that `to_dict` made `values` of. Ignores unknown keys."""
        known = {f.name for f in fields(cls)} & values.keys()
        scores = Scores.from_dict(values.get("scores", {}))
        return cls(**{name: values[name] for name in known} | {"scores": scores})


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
        """The history that `to_dict` made `values` of."""
        epochs = [EpochRecord.from_dict(record) for record in values["epochs"]]
        return cls(**{**values, "epochs": epochs})
