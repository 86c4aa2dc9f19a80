"""`train`: step, record, save, stop."""

import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.checkpoint import (
    remove_newer,
    restore,
    save_checkpoint,
    save_last,
)
from training.config import TrainConfig
from training.data import Batches, load_images
from training.engine import Engine
from training.extractor import extractor_for
from training.history import History
from training.networks import Generator
from training.progress import ProgressBar
from training.provenance import describe, write_config
from training.quality import SELECTION_SEED, Reference, drawing_with, reference_for
from training.records import Records, grid_steps
from training.selection import RULES, choose, prune, write_best
from training.step import TrainState, averaged
from training.verdict import Verdict, judge

# Steps between two looks at the losses, and seconds between two saves for a resume.
_RECORD_STEPS = 100
_SAVE_SECONDS = 30.0


class TrainingError(Exception):
    """Training cannot start or go on; the message says why."""


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    run_dir: Path
    step: int
    verdict: Verdict


def train(config: TrainConfig, run_dir: Path | None = None, *, resume: bool = False) -> Result:
    """Train in a new folder, or continue the run in `run_dir` to the length `config` asks for.

    run_dir: by default runs/DATASET-DATE-TIME.

    Raises:
        DataError, CheckpointError, TrainingError: with a message that says what to do.
    """
    device = _device(config.device)
    run_dir = run_dir or new_run_dir(config)
    if not resume and run_dir.exists() and any(run_dir.iterdir()):
        raise TrainingError(f"{run_dir} is not empty: continue its run with --resume {run_dir}")
    images = load_images(config.data).to(device)
    batches = Batches(images, config.recipe.batch_size, config.seed)
    state = TrainState.create(
        config.network, config.recipe, images.image_shape, device, config.seed
    )
    data_sha256 = images.sha256()
    history = restore(run_dir, state, data_sha256) if resume else History()
    total = config.iterations or batches.epoch_end(config.epochs)
    if state.step < total:
        history.reopen_epoch(batches.epochs(state.step))
    engine = Engine.create(state, batches, config, total)
    config = replace(config, engine=engine.kind)  # a resume goes on with it
    (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    remove_newer(run_dir, state.step)
    provenance = describe(config, data_sha256)
    write_config(run_dir, config, provenance)
    extractor = extractor_for(images, config.data.data_dir / "extractors", device)
    reference = reference_for(extractor, images, test=None)
    with Records(run_dir, state.step, len(history.epochs)) as records:
        run = _Run(config, run_dir, provenance, state, batches, engine, history, records, reference)
        run.go(total)
    return Result(run_dir, state.step, judge(config, run_dir, history.epochs, images, extractor))


def new_run_dir(config: TrainConfig) -> Path:
    """runs/DATASET-DATE-TIME."""
    name = Path(config.data.dataset).resolve().name
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


@dataclass
class _Run:
    """The parts of a run in progress."""

    config: TrainConfig
    run_dir: Path
    provenance: dict[str, Any]
    state: TrainState
    batches: Batches
    engine: Engine
    history: History
    records: Records
    reference: Reference
    saved_at: float = field(default_factory=time.monotonic)

    def go(self, total: int) -> None:
        """Train up to step `total`."""
        state, grids = self.state, grid_steps(total)
        with ProgressBar(state.step, total) as bar:
            while state.step < total:
                epochs = self.batches.epochs(state.step)
                epoch_end = self.batches.epoch_end(epochs + 1)
                stops = {epoch_end, total, state.step + _RECORD_STEPS}
                stops |= {step for step in grids if step > state.step}
                loss_g, loss_d = self._advance(min(stops))
                bar.update(state.step, epochs + 1, loss_g, loss_d)
                epoch_ends = state.step in {epoch_end, total}
                if epoch_ends or state.step in grids:
                    generator = averaged(state)
                if state.step in grids:
                    self.records.samples(state.step, generator)
                if epoch_ends:
                    scores = self._scores(generator, epochs, last=state.step == total)
                    self._end_epoch(epochs + 1, generator, scores, state.step == epoch_end)
                    self._save(done=state.step == total)

    def _advance(self, step: int) -> tuple[float, float]:
        """Train up to `step`; the last losses of both networks."""
        start, first = time.monotonic(), self.state.step
        losses = self.engine.run(step - first)
        if not np.isfinite(losses).all():
            bad = first + 1 + int(np.isfinite(losses).all(axis=1).argmin())
            raise TrainingError(
                f"the losses are not finite from iteration {bad} on. What was saved before is "
                f"whole; try a lower --lr"
            )
        seconds = time.monotonic() - start
        self.history.add(losses, seconds)
        self.records.iterations(step, losses, len(losses) * self.batches.batch_size / seconds)
        return float(losses[-1, 0]), float(losses[-1, 1])

    def _scores(self, generator: Generator, epochs_before: int, *, last: bool) -> dict[str, Any]:
        """Of the generator at an epoch's end: at the first, the last, and every so often."""
        every, before = self.config.score_every, self.batches.epoch_end(epochs_before)
        if not last and epochs_before > 0 and before // every == self.state.step // every:
            return {}
        draw = drawing_with(generator, self.state.noise.device)
        return self.reference.score(draw, generator.latent_dim, SELECTION_SEED).to_dict()

    def _end_epoch(
        self, epoch: int, generator: Generator, scores: dict[str, Any], finished: bool
    ) -> None:
        state, batch_size = self.state, self.batches.batch_size
        record = self.history.record_epoch(epoch, state.step, batch_size, scores, finished=finished)
        self.records.epoch(record)
        kept = {"loss_g": record.loss_g, **scores}
        save_checkpoint(self.run_dir, state, generator, kept, self.provenance)

    def _save(self, *, done: bool) -> None:
        if done or time.monotonic() - self.saved_at > _SAVE_SECONDS:
            save_last(self.run_dir, self.state, self.history, self.provenance["data_sha256"])
            choices = {rule: choose(rule, self.history.epochs) for rule in RULES}
            write_best(self.run_dir, self.config.select, choices)
            prune(self.run_dir, self.history.epochs)  # after the save, which may need them
            self.saved_at = time.monotonic()


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "--device cuda, but PyTorch finds no usable GPU: use --device cpu, or check the driver "
            "with nvidia-smi"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
