"""Which generator snapshots of a run are written, and when."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from training.gan.average import averaged
from training.gan.networks import Generator
from training.gan.state import TrainState
from training.run_folder.checkpoint import save_checkpoint
from training.run_folder.folder import RunFolder
from training.run_folder.history import EpochRecord


class Weights(NamedTuple):
    """A copy of the generator and of its moving average."""

    step: int
    generator: Generator
    ema: Generator

    @classmethod
    def of(cls, state: TrainState) -> "Weights":
        """The weights of a state, copied now."""
        return cls(state.step, deepcopy(state.generator), deepcopy(state.ema))


@dataclass
class Keeper:
    """Writes snapshots: of scored epochs at once, of the lowest loss when the run is saved.

    The rule of the exercise chooses the epoch with the lowest generator loss, which may be any but
    the first. So the weights with the lowest loss so far are copied in memory, and are written when
    the run is saved.
    """

    folder: RunFolder
    provenance: dict[str, Any]
    _lowest: float = float("inf")
    _held: tuple[EpochRecord, Weights] | None = field(default=None)

    def begin(self, epochs: list[EpochRecord]) -> None:
        """Continue after epochs whose needed snapshots are already written."""
        self._lowest = min((record.loss_g for record in epochs[1:]), default=float("inf"))
        self._held = None

    def hold(self, record: EpochRecord, weights: Callable[[], Weights]) -> None:
        """Keep the weights at the end of an epoch, if it has the lowest loss yet."""
        if record.epoch > 1 and record.loss_g < self._lowest:
            self._lowest, self._held = record.loss_g, (record, weights())

    def note(self, record: EpochRecord) -> None:
        """Note an epoch whose snapshot is written anyway."""
        if record.epoch > 1 and record.loss_g < self._lowest:
            self._lowest, self._held = record.loss_g, None

    def write(self, record: EpochRecord, weights: Weights, average: Generator) -> None:
        """Write a snapshot.  average: the averaged generator of `weights`."""
        kept = {"loss_g": record.loss_g, **(record.scores.to_dict() if record.scores else {})}
        step, generator, _ = weights
        save_checkpoint(self.folder, step, generator, average, kept, self.provenance)

    def write_held(self) -> None:
        """Write the copied weights, before a save that refers to them."""
        if self._held is not None:
            record, weights = self._held
            self.write(record, weights, averaged(weights.ema))
            self._held = None
