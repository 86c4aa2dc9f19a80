"""metrics.jsonl and TensorBoard: the measurements of a run while it trains."""

import json
import logging
import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard.summary import hparams

from inference.writing.files import atomic_write
from inference.writing.pictures import grid, save_png
from training.gan.networks import Generator
from training.records.event_file import EventFile
from training.records.samples import GRID_IMAGES, sample_images
from training.run_folder.folder import RunFolder
from training.run_folder.history import EpochRecord
from training.run_folder.scores import SCORES

# What a step measures: its name in metrics.jsonl (the fields of `StepMetrics`), its tag in
# TensorBoard and the tag's description there. TensorBoard groups tags by the word before the slash.
_STEP = {
    "loss_g": ("loss/generator", "The generator's loss, of each iteration."),
    "loss_d": ("loss/discriminator", "The discriminator's loss, of each iteration."),
    "d_real": (
        "probability/real",
        "Mean probability that the discriminator gave a batch of real images.",
    ),
    "d_fake": (
        "probability/generated",
        "Mean probability that the discriminator gave a batch of generated images.",
    ),
}
# As json.dumps would write it, which takes ten times as long.
_ITERATION = (
    '{{"kind": "iteration", "step": {}, '
    + ", ".join(f'"{name}": {{!r}}' for name in _STEP)
    + "}}\n"
)
_SPEED = ("speed/images_per_second", "Real images that the training steps took in a second.")
# The same for the means of an epoch.
_EPOCH = {
    "loss_g": ("epoch/generator_loss", "The generator's loss, mean of the epoch."),
    "loss_d": ("epoch/discriminator_loss", "The discriminator's loss, mean of the epoch."),
    "d_real": ("epoch/probability_real", "probability/real, mean of the epoch."),
    "d_fake": ("epoch/probability_generated", "probability/generated, mean of the epoch."),
    "images_per_second": ("epoch/images_per_second", "speed/images_per_second, of the epoch."),
}
_log = logging.getLogger(__name__)
_SAMPLES_TAG = "samples/seed_0"
_SCORES = {score.tag: score.description for score in SCORES}


class Records:
    """Writes the records of a run, from a step and an epoch on; later records are dropped.

    TensorBoard gets two event streams, one counted in iterations and one in epochs, so that a
    resume can cut each at its own place.
    """

    def __init__(
        self,
        folder: RunFolder,
        step: int,
        epoch: int,
        settings: dict[str, str | int | float | bool | None],
    ) -> None:
        """settings: TensorBoard shows them under HPARAMS, where it sorts runs by them."""
        self._folder = folder
        folder.samples.mkdir(exist_ok=True)
        _cut_back(folder.metrics, step, epoch)
        with ExitStack() as stack:
            self._metrics = stack.enter_context(folder.metrics.open("a", encoding="utf-8"))
            tags = dict([*_STEP.values(), _SPEED]) | _SCORES
            self._iterations = stack.enter_context(
                closing(EventFile(folder.tensorboard / "iterations", step + 1, tags))
            )
            self._epochs = stack.enter_context(
                closing(EventFile(folder.tensorboard / "epochs", epoch + 1, dict(_EPOCH.values())))
            )
            self._open = stack.pop_all()
        # The metrics in the table of HPARAMS, beside the settings.
        judged = dict.fromkeys([*_SCORES, _STEP["loss_g"][0], _STEP["loss_d"][0]])
        columns, start, self._end = hparams(settings, judged)
        self._iterations.add(step, columns)
        self._iterations.add(step, start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def iterations(
        self, last_step: int, losses: NDArray[np.float32], images_per_second: float
    ) -> None:
        """Record the steps up to `last_step`.  losses: (steps, 4), ordered as `StepMetrics`."""
        if not np.isfinite(losses).all():
            raise ValueError("JSON has no NaN and no infinity")
        first = last_step - len(losses) + 1
        lines = [
            _ITERATION.format(step, *row) for step, row in enumerate(losses.tolist(), start=first)
        ]
        self._metrics.write("".join(lines))
        self._iterations.table(first, tuple(tag for tag, _ in _STEP.values()), losses)
        self._iterations.scalars(last_step, {_SPEED[0]: images_per_second})

    def epoch(self, record: EpochRecord) -> None:
        """Record the means of an epoch, and its scores if there are any."""
        values = record.to_dict()
        self._line({"kind": "epoch", **values})
        means = {tag: values[name] for name, (tag, _) in _EPOCH.items()}
        self._epochs.scalars(record.epoch, means)
        if record.scores:
            scores = {score.tag: score.value(record.scores) for score in SCORES}
            self._iterations.scalars(record.step, scores)

    def samples(self, step: int, generator: Generator) -> None:
        """Record the sample grid of a step: images 0 to 63 of seed 0, as the sampler draws them."""
        picture, path = grid(sample_images(generator, GRID_IMAGES)), self._folder.grid(step)
        save_png(picture, path)
        self._iterations.picture(step, _SAMPLES_TAG, picture.shape, path.read_bytes())

    def finish(self) -> None:
        """Mark the run as finished."""
        self._iterations.add(0, self._end)
        self.sync()

    def sync(self) -> None:
        """Put everything on the disk."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        self._iterations.sync()
        self._epochs.sync()

    def _line(self, values: dict[str, Any]) -> None:
        self._metrics.write(json.dumps(values, allow_nan=False) + "\n")


def _cut_back(metrics: Path, step: int, epoch: int) -> None:
    """Keep the lines up to `step` and `epoch`; drop damaged lines, and say how many."""
    if not metrics.exists():
        return
    kept, damaged = [], 0
    with metrics.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.endswith("\n"):
                break  # The run was killed while it wrote this line.
            try:
                record = json.loads(line)
                if int(record["step"]) <= step and int(record.get("epoch", 0)) <= epoch:
                    kept.append(line)
            except (ValueError, TypeError, KeyError, AttributeError):
                damaged += 1
    if damaged:
        _log.warning("%s: %d damaged lines are dropped", metrics, damaged)
    with atomic_write(metrics) as file:
        file.writelines(line.encode() for line in kept)
