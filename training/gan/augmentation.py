"""Augmentation: the discriminator sees images a little shifted, and some of them mirrored.

Real and generated images are changed alike, and gradients flow through the change (Zhao et al.
2020, arXiv 2006.10738; Karras et al. 2020, arXiv 2006.06676).
"""

import torch
from torch import Tensor

COLUMNS = 3
"""Random numbers for one image."""
_SHIFT = 1 / 16  # of the side: the standard deviation
_MOST_SHIFT = 1 / 4
_MIRRORED_ABOVE = 0.5  # of N(0, 1): 31 % of the images


def augmented(images: Tensor, noise: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H, W): shifted by whole pixels, and some mirrored; differentiable.

    noise: (B, 3) ~ N(0, I): how far down, how far to the right, and whether mirrored. A border is
    continued where an image is shifted away from it.

    Most images are hardly shifted, and most are not mirrored. Were all shifts or both sides equally
    likely, the generator could not know which of them the real images have (Karras et al. 2020,
    section 2.2).
    """
    height, width = images.shape[2:]
    rows = _sources(noise[:, 0], height)
    columns = _sources(noise[:, 1], width)
    mirrored = (noise[:, 2] > _MIRRORED_ABOVE)[:, None, None]
    columns = torch.where(mirrored, columns.flip(2), columns)
    return rows[:, None] @ images @ columns[:, None].mT


def _sources(noise: Tensor, size: int) -> Tensor:
    """(B,) -> (B, size, size): a matrix of zeros and ones that shifts by noise * size / 16.

    A product with it has the same gradients each time on a GPU too, unlike indexing.
    """
    most = int(size * _MOST_SHIFT)
    shift = (noise * size * _SHIFT).round().clamp(-most, most)
    place = torch.arange(size, dtype=noise.dtype, device=noise.device)
    source = (place - shift[:, None]).clamp(0, size - 1)
    return (source[:, :, None] == place).to(noise.dtype)
