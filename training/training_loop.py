"""The training loop: steps, and the work between them."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import TrainConfig, options
from training.data.batches import Batches
from training.divergence import Diverged, check_classes, check_losses, check_weights
from training.engine.distributed import Ranks
from training.engine.engine import Engine, Stretch
from training.gan.average import averaged
from training.gan.state import TrainState
from training.interruption import Interrupted, Interruption, TrainingError
from training.keeping import Keeper, Weights
from training.records.metrics import Records
from training.records.phases import PhaseTimer
from training.records.progress import ProgressBar
from training.records.samples import grid_steps
from training.run_folder.config_file import add_facts
from training.run_folder.folder import RunFolder
from training.run_folder.history import EpochRecord, History
from training.run_folder.resume import Saves, what_is_saved
from training.run_folder.scores import Scores
from training.scoring.by_heart import ByHeart
from training.scoring.reference import SELECTION_SEED, Reference
from training.scoring.selection import RULES, choose, prune, write_best
from training.scoring.subject import Subject

_MOST_RETRIES = 3
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How often the training loop stops taking steps to do other work."""

    record_steps: int = 100
    """The most steps between two checks of the losses."""
    look_seconds: float = 1.0
    """The most seconds between two checks whether to stop."""
    save_seconds: float = 30.0
    """The fewest seconds between two saves."""


DEFAULT_PACE = Pace()


@dataclass
class Flight:
    """Steps that have been launched, and the work that waits for their losses."""

    stretch: Stretch
    began: float
    epoch: int
    ended: Callable[[], Weights] | None
    """Gives the weights at the end of an epoch, if it ends with these steps and is not scored."""


class Steps(NamedTuple):
    """The order to the other ranks to take some steps."""

    steps: int


@dataclass
class Run:
    """A run with all its parts, ready to continue from its state."""

    config: TrainConfig
    provenance: dict[str, Any]
    saves: Saves
    state: TrainState
    batches: Batches
    engine: Engine
    history: History
    reference: Reference
    by_heart: ByHeart | None
    """None where no real images are held out."""
    interruption: Interruption
    ranks: Ranks
    timer: PhaseTimer
    pace: Pace
    _records: Records = field(init=False)
    _keeper: Keeper = field(init=False)
    _bar: ProgressBar = field(init=False)
    _flight: Flight | None = None
    _saved_at: float = field(default_factory=time.monotonic)
    _checked_at: float = field(default_factory=time.monotonic)
    _landed_at: float = 0.0
    _steps_a_look: int = 10
    _last_losses: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 4), np.float32))

    def __post_init__(self) -> None:
        self._keeper = Keeper(self._folder, self.provenance)

    @property
    def _folder(self) -> RunFolder:
        return self.saves.folder

    def train_to(self, total: int) -> None:
        """Train up to step `total`. If the run diverges, go back to the last sound save.

        Raises:
            TrainingError: if the run diverges repeatedly.
            Interrupted: if a signal has asked to stop.
        """
        while True:
            self._cut_back(total)
            records = Records(
                self._folder, self.state.step, self.history.epochs, options(self.config)
            )
            with records as self._records:
                try:
                    self._train(total)
                    return self._records.finish()
                except Diverged as found:
                    evidence = str(found)
            self._go_back(evidence)

    def _cut_back(self, total: int) -> None:
        """Remove everything from the folder that is newer than the state."""
        if self.state.step < total:
            self.history.reopen_epoch(self.batches.epochs(self.state.step))
        self._folder.remove_after(self.state.step)
        if self.history.epochs:
            self._write_best()
        else:
            self._folder.best.unlink(missing_ok=True)
        self._keeper.begin(self.history.epochs)
        if self.state.step == 0:
            self.saves.write(self.state, self.history, checked=True)

    def _train(self, total: int) -> None:
        grids = grid_steps(total, self.config.grids)
        with ProgressBar(self.state.step, total) as self._bar:
            while self.state.step < total:
                self._stop_if_asked()
                epoch = self.batches.epochs(self.state.step) + 1
                epoch_end = self.batches.epoch_end(epoch)
                self._launch(epoch, epoch_end, total, grids)
                step, ends = self.state.step, self.state.step in {epoch_end, total}
                scored = ends and self._is_scored(epoch, last=step == total)
                if scored or step in grids:
                    self._show(epoch, scored, step in grids, finished=step == epoch_end)
                since = self._checked_at if scored else self._saved_at
                if step == total or time.monotonic() - since > self.pace.save_seconds:
                    self._save(checked=scored)
            self._stop_if_asked()

    def _launch(self, epoch: int, epoch_end: int, total: int, grids: set[int]) -> None:
        """Launch the next steps, and handle the previous steps while the device works."""
        first = self.state.step
        every = self.pace.record_steps
        looks = {first + self._steps_a_look, (first // every + 1) * every}
        count = min(stop for stop in {epoch_end, total} | grids | looks if stop > first) - first
        began = time.monotonic()
        with self.timer.phase("steps"), self.ranks.order(Steps(count), self.interruption):
            stretch = self.engine.launch(count)
        ended: Callable[[], Weights] | None = None
        if self.state.step == epoch_end and not self._is_scored(epoch, self.state.step == total):
            # A copy is made on the device after these steps, so running steps cannot change it.
            now = partial(Weights.of, self.state)
            copy = None if stretch.is_done() else now()
            ended = now if copy is None else lambda: copy
        before, self._flight = self._flight, Flight(stretch, began, epoch, ended)
        if before is not None:
            self._land(before)
        if stretch.is_done():
            self._wait()

    def _wait(self) -> None:
        """Handle all steps that have been launched."""
        if self._flight is not None:
            flight, self._flight = self._flight, None
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        """Check and record the losses of some steps."""
        with self.timer.phase("steps"):
            losses = flight.stretch.losses()
        known, step = np.concatenate([self._last_losses, losses]), flight.stretch.last_step
        check_losses(known, step - len(known) + 1)
        self._last_losses = losses[-1:]
        now = time.monotonic()
        seconds, self._landed_at = now - max(flight.began, self._landed_at), now
        self._steps_a_look = max(1, int(self.pace.look_seconds * len(losses) / seconds))
        with self.timer.phase("records"):
            self.history.add(losses, seconds)
            self._records.iterations(step, losses, len(losses) * self.batches.batch_size / seconds)
            self._bar.update(step, flight.epoch, float(losses[-1, 0]), float(losses[-1, 1]))
            if flight.ended is not None:
                record = self._record_epoch(flight.epoch, step, None, finished=True)
                self._keeper.hold(record, flight.ended)

    def _show(self, epoch: int, scored: bool, grid: bool, *, finished: bool) -> None:
        """Write the sample grid of this step if `grid`; score and keep the average if `scored`."""
        self._wait()
        check_weights(self.state)  # the average must have finite weights
        with self.timer.phase("average"):
            average = averaged(self.state.ema, roughly=not scored)
        if grid:
            with self.timer.phase("samples"):
                self._records.samples(self.state.step, average)
        if scored:
            self._bar.begin_scoring()
            with self.timer.phase("scores"):
                subject = Subject.of(average)
                scores = self.reference.score(subject, SELECTION_SEED)
                if self.by_heart is not None:
                    scores = self.by_heart.added(
                        scores, self.state.discriminator, subject, SELECTION_SEED
                    )
            self._bar.end_scoring(self.state.step, scores)
            record = self._record_epoch(epoch, self.state.step, scores, finished=finished)
            check_classes(self.history.epochs)
            with self.timer.phase("checkpoints"):
                self._keeper.write(record, Weights.of(self.state), average)
            if finished:
                self._keeper.note(record)

    def _is_scored(self, epoch: int, last: bool) -> bool:
        """Whether the end of an epoch is scored: the first, the last, or a due one."""
        every, before = self.config.score_every, self.batches.epoch_end(epoch - 1)
        return last or epoch == 1 or before // every != self.state.step // every

    def _record_epoch(
        self, epoch: int, step: int, scores: Scores | None, *, finished: bool
    ) -> EpochRecord:
        size = self.batches.batch_size
        record = self.history.record_epoch(epoch, step, size, scores, finished=finished)
        with self.timer.phase("records"):
            self._records.epoch(record, finished=finished)
        return record

    def _save(self, *, checked: bool) -> None:
        """Save the training state.  checked: whether this step was scored, and is sound."""
        self._wait()
        check_weights(self.state)
        with self.timer.phase("checkpoints"):
            self._keeper.write_held()
        with self.timer.phase("saves"):
            self._records.sync()  # records must reach the disk before the save that follows them
            self.saves.write(self.state, self.history, checked=checked)
            self._saved_at = time.monotonic()
            if checked:
                self._checked_at = self._saved_at
            if self.history.epochs:
                self._write_best()
                # After the save, because until then a resume may need the old snapshots. A resume
                # from previous.pt needs the snapshots that were best then.
                prune(self._folder, self.history.epochs, self.saves.previous_epochs)
        add_facts(self._folder, seconds=self.timer.seconds())

    def _write_best(self) -> None:
        choices = {rule: choose(rule, self.history.epochs) for rule in RULES}
        write_best(self._folder, self.config.select, choices)

    def _stop_if_asked(self) -> None:
        if self.interruption.number is not None:
            if self.saves.last_step != self.state.step:
                self._save(checked=False)
            number, best = self.interruption.number, ""
            if any(record.scores for record in self.history.epochs):
                choice = choose(self.config.select, self.history.epochs)
                best = f"of iteration {choice.step} by {choice.rule}"
            raise Interrupted(self._folder.path, self.state.step, number, best)

    def _go_back(self, evidence: str) -> None:
        """Go back to the last sound save, with new noise. A resume from that save does the same."""
        divergences = [*self.history.divergences, evidence]
        tries = len(divergences)
        if tries > _MOST_RETRIES:
            found = "; ".join(divergences)
            raise TrainingError(
                f"the run has diverged {tries} times ({found}); {what_is_saved(self._folder)}, "
                f"with a lower --lr and --override lr"
            )
        self._flight, self._last_losses = None, self._last_losses[:0]
        self.history = self.saves.go_back(self.state, self.config.seed, divergences)
        with self.ranks.order(self.state.snapshot(torch.device("cpu")), self.interruption):
            pass  # the other ranks take over this state
        _log.warning(
            "diverged: %s. Back to iteration %d with new noise, attempt %d of %d",
            evidence, self.state.step, tries, _MOST_RETRIES,
        )  # fmt: skip
        self.saves.write(self.state, self.history, checked=False)
