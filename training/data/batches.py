"""Endless shuffled full batches of images."""

import numpy as np
import torch
from torch import Tensor

from inference.artifact import MOST_CLASSES
from training.data.images import DataError, Images, normalised


class Batches:
    """Endless full batches: each epoch has a new permutation, and a batch may span two epochs.

    A batch depends on the seed and its step alone, so a resume needs no saved position.
    """

    def __init__(
        self, images: Images, batch_size: int, seed: int, *, conditional: bool = False
    ) -> None:
        """conditional: whether batches have labels, which the images must have."""
        if conditional and images.labels is None:
            raise DataError(
                "--conditional needs labelled images, and these have no labels: put the images of "
                "each class into a subfolder of its own, or leave out --conditional"
            )
        if conditional and len(images.classes) > MOST_CLASSES:
            raise DataError(
                f"{len(images.classes):,} classes are more than the {MOST_CLASSES:,} that an "
                f"artifact can hold: leave out --conditional"
            )
        if batch_size > len(images):
            raise DataError(
                f"{len(images)} images are fewer than one batch of {batch_size}: "
                f"add images, or lower --batch-size or --held-out"
            )
        self.pixels = images.pixels
        self.labels = images.labels if conditional else None
        self.batch_size = batch_size
        self.seed = seed
        self._orders: dict[int, Tensor] = {}

    def __getitem__(self, step: int) -> Tensor:
        """The real images of step 0, 1, …: float32 (B, C, H, W) in [-1, 1]."""
        return normalised(self.pixels[self.indices(step)])

    def labels_at(self, step: int) -> Tensor | None:
        """The labels of these images, int64 (B,); None for batches without labels."""
        return None if self.labels is None else self.labels[self.indices(step)]

    def indices(self, step: int) -> Tensor:
        """The indices of these images, (B,)."""
        epoch, first = divmod(step * self.batch_size, len(self.pixels))
        indices = self._order(epoch)[first : first + self.batch_size]
        if len(indices) < self.batch_size:
            rest = self._order(epoch + 1)[: self.batch_size - len(indices)]
            indices = torch.cat([indices, rest])
        return indices

    def epochs(self, step: int) -> int:
        """Epochs finished after `step` steps."""
        return step * self.batch_size // len(self.pixels)

    def epoch_end(self, epoch: int) -> int:
        """The first step that has seen all images of epochs 1 to `epoch`."""
        return -(-epoch * len(self.pixels) // self.batch_size)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            self._orders = {e: self._orders[e] for e in self._orders if e == epoch - 1}
            (seed,) = np.random.SeedSequence((self.seed, epoch)).generate_state(1, np.uint64)
            generator = torch.Generator().manual_seed(int(seed))
            order = torch.randperm(len(self.pixels), generator=generator)
            self._orders[epoch] = order.to(self.pixels.device)
        return self._orders[epoch]
