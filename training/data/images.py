"""`Images`: a data set in memory as one uint8 tensor."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from inference.errors import GanpackError

_FEWEST_TO_HOLD_OUT_OF = 200
_FEWEST_HELD_OUT, _MOST_HELD_OUT = 10, 1000


class DataError(GanpackError):
    """A data set cannot be loaded; the message says what to do."""


@dataclass(frozen=True)
class Images:
    """A data set in memory."""

    pixels: Tensor
    """uint8 (N, C, H, W)."""
    labels: Tensor | None
    """int64 (N,), indices into `classes`; None for unlabelled images."""
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def __str__(self) -> str:
        """A description of the images."""
        channels, height, width = self.image_shape
        colour = "grey" if channels == 1 else "colour"
        classes = f"{len(self.classes)} classes" if self.classes else "no labels"
        return f"{len(self):,} images of {width}×{height} in {colour}, {classes}"

    def sha256(self) -> str:
        """The sha256 of all pixels and labels in order, which identifies the data set."""
        digest = hashlib.sha256(self.pixels.cpu().numpy().data)  # hashes without a copy
        if self.labels is not None:
            digest.update(self.labels.cpu().numpy().tobytes())
        return digest.hexdigest()

    def take(self, indices: Tensor) -> "Images":
        """The images at `indices`."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, pixels=self.pixels[indices], labels=labels)

    def to(self, device: torch.device) -> "Images":
        """The same images on `device`."""
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, pixels=self.pixels.to(device), labels=labels)


def hold_out(images: Images, share: float) -> tuple[Images, Images | None]:
    """The images to train on, and a random share to hold out; the same each time.

    One image of each class is never held out. Of fewer than 200 images none are.
    """
    if share == 0 or len(images) < _FEWEST_TO_HOLD_OUT_OF:
        return images, None
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    if images.labels is not None:
        _, first = np.unique(images.labels[order].numpy(), return_index=True)
        order = torch.from_numpy(np.delete(order.numpy(), first))
    count = min(max(round(share * len(images)), _FEWEST_HELD_OUT), _MOST_HELD_OUT)
    held_out = order[:count]
    stays = torch.ones(len(images), dtype=torch.bool).index_fill_(0, held_out, value=False)
    return images.take(stays.nonzero()[:, 0]), images.take(held_out)


def normalised(pixels: Tensor) -> Tensor:
    """Convert uint8 0 … 255 to float32 in [-1, 1]."""
    return pixels.float().div_(127.5).sub_(1)
