"""metrics.jsonl and TensorBoard: the measurements of a run while it trains."""

import json
import logging
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard.summary import hparams

from inference.writing.files import atomic_write
from inference.writing.pictures import grid, save_png
from training.gan.networks import Generator
from training.records.event_file import EventFile
from training.records.metrics_file import SoundLines
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
# The largest file that is read: a line has half as many bytes, but runs may write anything else.
_MOST_BYTES, _MOST_BYTES_OF_STEP = 2**30, 512
_log = logging.getLogger(__name__)
_SAMPLES_TAG = "samples/seed_0"
_SCORES = {score.tag: score.description for score in SCORES}


class Records:
    """Writes the records of a run from a step on, after the epochs up to it; drops later records.

    TensorBoard gets two event streams, one counted in iterations and one in epochs, so that a
    resume can cut each at its own place.
    """

    def __init__(
        self,
        folder: RunFolder,
        step: int,
        epochs: Sequence[EpochRecord],
        settings: dict[str, str | int | float | bool | None],
    ) -> None:
        """settings: TensorBoard shows them under HPARAMS, where it sorts runs by them."""
        self._folder = folder
        folder.samples.mkdir(exist_ok=True)
        _cut_back(folder, step, epochs)
        with ExitStack() as stack:
            self._metrics = stack.enter_context(folder.metrics.open("ab"))
            tags = dict([*_STEP.values(), _SPEED]) | _SCORES
            self._iterations = stack.enter_context(
                closing(EventFile(folder.tensorboard / "iterations", step + 1, tags))
            )
            self._epochs = stack.enter_context(
                closing(
                    EventFile(folder.tensorboard / "epochs", len(epochs) + 1, dict(_EPOCH.values()))
                )
            )
            self._open = stack.pop_all()
        # The metrics in the table of HPARAMS, beside the settings.
        always = [score.tag for score in SCORES if not score.of_discriminator]
        judged = dict.fromkeys([*always, _STEP["loss_g"][0], _STEP["loss_d"][0]])
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
        self._metrics.write("".join(lines).encode())
        self._iterations.table(first, tuple(tag for tag, _ in _STEP.values()), losses)
        self._iterations.scalars(last_step, {_SPEED[0]: images_per_second})

    def epoch(self, record: EpochRecord) -> None:
        """Record the means of an epoch, and its scores if there are any."""
        values = record.to_dict()
        self._metrics.write(_epoch_line(record))
        means = {tag: values[name] for name, (tag, _) in _EPOCH.items()}
        self._epochs.scalars(record.epoch, means)
        if record.scores:
            scores = {score.tag: score.value(record.scores) for score in SCORES}
            known = {tag: value for tag, value in scores.items() if not math.isnan(value)}
            self._iterations.scalars(record.step, known)

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


def _cut_back(folder: RunFolder, step: int, epochs: Sequence[EpochRecord]) -> None:
    """Write metrics.jsonl anew: its sound lines up to `step`, and the epochs, which are known.

    A warning counts the iterations whose lines are lost.
    """
    lines = SoundLines(folder.metrics, _MOST_BYTES + _MOST_BYTES_OF_STEP * step)
    found = lines.iterations() if step and folder.metrics.exists() else iter(())
    kept, left = 0, [*reversed(epochs)]
    with atomic_write(folder.metrics) as file:
        for each in found:
            if each.step > step:
                break
            while left and left[-1].step < each.step:
                file.write(_epoch_line(left.pop()))
            file.write(each.line)
            kept += 1
        file.writelines(_epoch_line(record) for record in reversed(left))
    if kept < step:
        _log.warning(
            "%s: %d of %d iterations are lost, because their lines are damaged or missing",
            folder.metrics, step - kept, step,
        )  # fmt: skip


def _epoch_line(record: EpochRecord) -> bytes:
    return (json.dumps({"kind": "epoch", **record.to_dict()}, allow_nan=False) + "\n").encode()
