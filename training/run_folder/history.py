"""What a run has measured so far: means of every epoch, and sums of the one in progress."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from training.run_folder.scores import Scores


@dataclass(frozen=True)
class EpochRecord:
    """Means over one epoch, whose last step has a checkpoint."""

    epoch: int
    step: int
    loss_g: float
    loss_d: float
    d_real: float
    d_fake: float
    images_per_second: float
    scores: Scores | None = None
    """Scores of that checkpoint; None where it was not scored."""

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
    """Grows by `add` and `record_epoch`; JSON values, so that last.pt can hold it."""

    epochs: list[EpochRecord] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    """Of the losses since the last epoch's end, in the order of `Losses`."""
    steps: int = 0
    """Steps in those sums."""
    seconds: float = 0.0
    """Time of those steps."""
    divergences: list[str] = field(default_factory=list)
    """The evidence of each time that the run went wrong and was taken back."""

    def add(self, losses: NDArray[np.float32], seconds: float) -> None:
        """Count steps of the epoch in progress; losses: (steps, 4)."""
        # One by one in float64: the sums do not depend on how many steps are added at once.
        for row in losses.tolist():
            self.sums = [total + value for total, value in zip(self.sums, row, strict=True)]
        self.steps += len(losses)
        self.seconds += seconds

    def record_epoch(
        self, epoch: int, step: int, batch_size: int, scores: Scores | None, *, finished: bool
    ) -> EpochRecord:
        """The record of the epoch in progress, now the last of `epochs`.

        scores: of its checkpoint; None where it was not scored.
        finished: False where the run ends within the epoch; its sums stay, to go on with.
        """
        loss_g, loss_d, d_real, d_fake = (total / self.steps for total in self.sums)
        speed = self.steps * batch_size / self.seconds
        record = EpochRecord(epoch, step, loss_g, loss_d, d_real, d_fake, speed, scores)
        self.epochs.append(record)
        if finished:
            self.sums, self.steps, self.seconds = [0.0] * 4, 0, 0.0
        return record

    def reopen_epoch(self, finished_epochs: int) -> None:
        """Go on with an epoch that the end of a run had cut short: its record gives way."""
        del self.epochs[finished_epochs:]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"epochs": [record.to_dict() for record in self.epochs]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `to_dict` gave."""
        epochs = [EpochRecord.from_dict(record) for record in values["epochs"]]
        return cls(**{**values, "epochs": epochs})
