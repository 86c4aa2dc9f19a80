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
# TensorBoard and the tag's description there. TensorBoard groups tags by the word before the slash,
# and sorts the groups by it: the losses come first.
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
    "loss_g": ("mean/generator_loss", "The generator's loss, mean of the epoch."),
    "loss_d": ("mean/discriminator_loss", "The discriminator's loss, mean of the epoch."),
    "d_real": ("mean/probability_real", "probability/real, mean of the epoch."),
    "d_fake": ("mean/probability_generated", "probability/generated, mean of the epoch."),
    "images_per_second": ("mean/images_per_second", "speed/images_per_second, of the epoch."),
}
# The largest file that is read: a line has half as many bytes, but runs may write anything else.
_MOST_BYTES, _MOST_BYTES_OF_STEP = 2**30, 512
_log = logging.getLogger(__name__)
_SAMPLES_TAG = "samples/seed_0"
_SCORES = {score.tag: score.description for score in SCORES}


class Records:
    """Writes the records of a run from a step on, after the epochs up to it; drops later records.

    TensorBoard counts everything in iterations, so that a run is one line in its charts.
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
            tags = dict([*_STEP.values(), _SPEED, *_EPOCH.values()]) | _SCORES
            self._events = stack.enter_context(
                closing(EventFile(folder.tensorboard, step + 1, tags))
            )
            self._open = stack.pop_all()
        # The metrics in the table of HPARAMS, beside the settings.
        always = [score.tag for score in SCORES if not score.of_discriminator]
        judged = dict.fromkeys([*always, _STEP["loss_g"][0], _STEP["loss_d"][0]])
        columns, start, self._end = hparams(settings, judged)
        self._events.add(step, columns)
        self._events.add(step, start)

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
        self._events.table(first, tuple(tag for tag, _ in _STEP.values()), losses)
        self._events.scalars(last_step, {_SPEED[0]: images_per_second})

    def epoch(self, record: EpochRecord, *, finished: bool) -> None:
        """Record the means of an epoch, and its scores if there are any.

        finished: False if the run ends within the epoch. Then TensorBoard gets no means, because a
        resume could not take them back.
        """
        values = record.to_dict()
        self._metrics.write(_epoch_line(record))
        if finished:
            means = {tag: values[name] for name, (tag, _) in _EPOCH.items()}
            self._events.scalars(record.step, means)
        if record.scores:
            scores = {score.tag: score.value(record.scores) for score in SCORES}
            known = {tag: value for tag, value in scores.items() if not math.isnan(value)}
            self._events.scalars(record.step, known)

    def samples(self, step: int, generator: Generator) -> None:
        """Record the sample grid of a step: images 0 to 63 of seed 0, like the sampler's."""
        picture, path = grid(sample_images(generator, GRID_IMAGES)), self._folder.grid(step)
        save_png(picture, path)
        self._events.picture(step, _SAMPLES_TAG, picture.shape, path.read_bytes())

    def finish(self) -> None:
        """Mark the run as finished."""
        self._events.add(0, self._end)
        self.sync()

    def sync(self) -> None:
        """Put everything on the disk."""
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        self._events.sync()


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
