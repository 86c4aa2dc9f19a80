"""The training loop: steps, and what is due between them."""

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inference.errors import GanpackError
from training.config import TrainConfig, options
from training.data.batches import Batches
from training.divergence import Diverged, check_classes, check_losses, check_weights
from training.engine.distributed import Ranks
from training.engine.engine import Engine
from training.gan.average import averaged
from training.gan.networks import Generator
from training.gan.state import TrainState
from training.interruption import Interrupted, Interruption
from training.records.metrics import Records
from training.records.phases import PhaseTimer
from training.records.progress import ProgressBar
from training.records.samples import grid_steps
from training.run_folder.checkpoint import save_checkpoint
from training.run_folder.config_file import add_facts
from training.run_folder.folder import RunFolder
from training.run_folder.history import History
from training.run_folder.resume import Saves, what_is_saved
from training.run_folder.scores import Scores
from training.scoring.reference import SELECTION_SEED, Reference
from training.scoring.selection import RULES, choose, prune, write_best
from training.scoring.subject import Subject

_MOST_RETRIES = 3
_log = logging.getLogger(__name__)


class TrainingError(GanpackError):
    """Training cannot start or go on; the message says why."""


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
class Run:
    """A run with all its parts, ready to train from its present state."""

    config: TrainConfig
    provenance: dict[str, Any]
    saves: Saves
    state: TrainState
    batches: Batches
    engine: Engine
    history: History
    reference: Reference
    interruption: Interruption
    ranks: Ranks
    timer: PhaseTimer
    pace: Pace
    _records: Records = field(init=False)
    _saved_at: float = field(default_factory=time.monotonic)
    _checked_at: float = field(default_factory=time.monotonic)
    _steps_a_look: int = 10
    _last_losses: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 4), np.float32))

    @property
    def _folder(self) -> RunFolder:
        return self.saves.folder

    def train_to(self, total: int) -> None:
        """Train up to step `total`; where the run diverges, go back to the last sound save.

        Raises:
            TrainingError: where the run diverges again and again.
            Interrupted: where a signal has asked to stop.
        """
        while True:
            self._cut_back(total)
            records = Records(
                self._folder.path, self.state.step, len(self.history.epochs), options(self.config)
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
        if self.state.step == 0:
            self.saves.write(self.state, self.history, checked=True)

    def _train(self, total: int) -> None:
        grids = grid_steps(total)
        with ProgressBar(self.state.step, total) as bar:
            while self.state.step < total:
                self._stop_if_asked()
                epoch = self.batches.epochs(self.state.step) + 1
                epoch_end = self.batches.epoch_end(epoch)
                loss_g, loss_d = self._advance({epoch_end, total} | grids)
                bar.update(self.state.step, epoch, loss_g, loss_d)
                self._after_steps(epoch, epoch_end, total, grids)
            self._stop_if_asked()

    def _after_steps(self, epoch: int, epoch_end: int, total: int, grids: set[int]) -> None:
        """Do what is due at this step: a sample grid, the end of an epoch, a save."""
        step = self.state.step
        epoch_ends = step in {epoch_end, total}
        scores: Scores | None = None
        if epoch_ends or step in grids:
            generator = self._averaged()
            if step in grids:
                with self.timer.phase("samples"):
                    self._records.samples(step, generator)
            if epoch_ends:
                scores = self._scores(generator, epoch - 1, last=step == total)
                self._end_epoch(epoch, generator, scores, step == epoch_end)
        now = time.monotonic()
        since = self._checked_at if scores else self._saved_at
        if step == total or now - since > self.pace.save_seconds:
            with self.timer.phase("saves"):
                self._save(checked=bool(scores))
            self._note_time()

    def _averaged(self) -> Generator:
        """The generator to show, score and keep."""
        check_weights(self.state)  # an average of weights that are not finite is useless
        with self.timer.phase("average"):
            return averaged(self.state)

    def _advance(self, stops: set[int]) -> tuple[float, float]:
        """Train up to the next of `stops` at most; return the last losses of both networks."""
        start, first = time.monotonic(), self.state.step
        every = self.pace.record_steps
        looks = {first + self._steps_a_look, (first // every + 1) * every}
        count = min(stop for stop in stops | looks if stop > first) - first
        with self.timer.phase("steps"), self.ranks.order(count, self.interruption):
            losses = self.engine.run(count)
        known = np.concatenate([self._last_losses, losses])
        check_losses(known, self.state.step - len(known) + 1)
        self._last_losses = losses[-1:]
        seconds = time.monotonic() - start
        self._steps_a_look = max(1, int(self.pace.look_seconds * len(losses) / seconds))
        with self.timer.phase("records"):
            self.history.add(losses, seconds)
            speed = len(losses) * self.batches.batch_size / seconds
            self._records.iterations(self.state.step, losses, speed)
        return float(losses[-1, 0]), float(losses[-1, 1])

    def _scores(self, generator: Generator, epochs_before: int, *, last: bool) -> Scores | None:
        """Score the generator at the end of an epoch, if it is the first, the last or due."""
        every, before = self.config.score_every, self.batches.epoch_end(epochs_before)
        if not last and epochs_before > 0 and before // every == self.state.step // every:
            return None
        with self.timer.phase("scores"):
            return self.reference.score(Subject.of(generator), SELECTION_SEED)

    def _end_epoch(
        self, epoch: int, generator: Generator, scores: Scores | None, finished: bool
    ) -> None:
        state, batch_size = self.state, self.batches.batch_size
        record = self.history.record_epoch(epoch, state.step, batch_size, scores, finished=finished)
        if scores:
            check_classes(self.history.epochs)
        with self.timer.phase("records"):
            self._records.epoch(record)
        kept = {"loss_g": record.loss_g, **(scores.to_dict() if scores else {})}
        with self.timer.phase("checkpoints"):
            save_checkpoint(self._folder, state, generator, kept, self.provenance)

    def _save(self, *, checked: bool) -> None:
        """Save the training state.  checked: whether this very step was scored, and is sound."""
        check_weights(self.state)
        self._records.sync()  # records must reach the disk before the save that follows them
        self.saves.write(self.state, self.history, checked=checked)
        self._saved_at = time.monotonic()
        if checked:
            self._checked_at = self._saved_at
        if self.history.epochs:
            self._write_best()
            # Only after the save: until then, a resume may need the old snapshots. A resume from
            # previous.pt needs those that were best then.
            prune(self._folder, self.history.epochs, self.saves.previous_epochs)

    def _note_time(self) -> None:
        add_facts(self._folder, seconds=self.timer.seconds())

    def _write_best(self) -> None:
        choices = {rule: choose(rule, self.history.epochs) for rule in RULES}
        write_best(self._folder, self.config.select, choices)

    def _stop_if_asked(self) -> None:
        if self.interruption.number is not None:
            if self.saves.last_step != self.state.step:
                with self.timer.phase("saves"):
                    self._save(checked=False)
            self._note_time()
            raise Interrupted(self._folder.path, self.state.step, self.interruption.number)

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
        self._last_losses = self._last_losses[:0]
        self.history = self.saves.go_back(self.state, self.config.seed, divergences)
        with self.ranks.order(self.state.snapshot(torch.device("cpu")), self.interruption):
            pass  # the other ranks take over this state
        _log.warning(
            "diverged: %s. Back to iteration %d with new noise, attempt %d of %d",
            evidence, self.state.step, tries, _MOST_RETRIES,
        )  # fmt: skip
        self.saves.write(self.state, self.history, checked=False)
