"""Score real images that were changed in known ways: `python scripts/quality_scale.py`.

Generators are scored against one half of the training images. These images are the other half.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import DataConfig
from training.data.datasets import load_images
from training.data.images import Images
from training.scoring.extractor import extractor_for
from training.scoring.reference import Reference, split_reals
from training.scoring.subject import Subject


def noisy(images: Images) -> Tensor:
    """Add normal noise of 10 grey levels."""
    noise = torch.randn(images.pixels.shape, generator=torch.Generator().manual_seed(0))
    return (images.pixels + 10 * noise).round().clamp(0, 255).byte()


def blurred(images: Images) -> Tensor:
    """Blend each image with its blur by (1, 2, 1) / 4 in both directions."""
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    pixels = images.pixels.float()
    padded = F.pad(pixels, (1, 1, 1, 1), mode="replicate")
    return pixels.lerp(F.conv2d(padded, torch.outer(taps, taps)[None, None]), 0.5).round().byte()


def without_first_class(images: Images) -> Tensor:
    """Leave out one of the ten classes."""
    assert images.labels is not None
    return images.pixels[images.labels > 0]


def main() -> None:
    changes: dict[str, Callable[[Images], Tensor]] = {
        "nothing": lambda images: images.pixels,
        "noise of 10 grey levels": noisy,
        "half a blur of 3×3": blurred,
        "the first class missing": without_first_class,
    }
    for dataset in ("mnist", "fashion-mnist"):
        images = load_images(DataConfig(dataset))
        extractor = extractor_for(images, Path("data/extractors"), torch.device("cpu"))
        half, others = split_reals(images)
        reference = Reference(extractor, half, others, "train")
        for name, change in changes.items():
            parts = iter(change(others)[: reference.count].split(1000))
            scores = reference.score(Subject(lambda z, parts=parts: next(parts), 1), 0)
            print(
                f"{dataset}, {name}: excess {scores.excess:.2%}, precision {scores.precision:.2f}, "
                f"recall {scores.recall:.2f}"
            )


if __name__ == "__main__":
    main()
