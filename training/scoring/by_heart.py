"""How far the discriminator has learned the training images by heart."""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch

from training.data.images import Images, normalised
from training.engine.precision import float32_products
from training.gan.networks import Discriminator, generator_inputs
from training.run_folder.scores import Scores
from training.scoring.subject import Subject

_MOST_IMAGES = 10_000  # of each kind
_ENOUGH_IMAGES = 2500  # of those that are not held out, if fewer are
_VALUES_AT_ONCE = 2**20  # pixels


@dataclass(frozen=True)
class ByHeart:
    """Training images and held-out ones, whose logits are compared.

    A discriminator that knows its training images by heart takes other real images for generated
    ones (Karras et al. 2020, arXiv 2006.06676, section 3). No choice depends on this measure, so
    test images can be held out and still be new to every generator that is scored on them.
    """

    train: Images
    held_out: Images

    @classmethod
    def of(cls, train: Images, held_out: Images) -> Self:
        """The measure on a random part of the images, the same each time."""
        held_out = _some(held_out, _MOST_IMAGES)
        return cls(_some(train, max(len(held_out), _ENOUGH_IMAGES)), held_out)

    def added(
        self, scores: Scores, discriminator: Discriminator, subject: Subject, seed: int
    ) -> Scores:
        """The scores, with the mean logits of the first images of a seed and of the real ones."""
        count = min(max(len(self.held_out), _ENOUGH_IMAGES), scores.images)
        inputs = generator_inputs(subject.latent_dim, len(subject.classes), count, seed=seed)
        fake = Images(subject.generate(*inputs), (*inputs, None)[1], subject.classes)
        train, held_out, generated = (
            mean_logit(discriminator, images, labelled=bool(subject.classes))
            for images in (self.train, self.held_out, fake)
        )
        gap = train - generated
        return replace(
            scores,
            by_heart=(train - held_out) / gap if gap > 0 else math.nan,
            logit_train=train,
            logit_held_out=held_out,
            logit_generated=generated,
            held_out=len(self.held_out),
        )


def _some(images: Images, most: int) -> Images:
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    return images.take(order[:most].to(images.pixels.device))


@float32_products()
@torch.no_grad()
def mean_logit(discriminator: Discriminator, images: Images, *, labelled: bool) -> float:
    """The mean logit of some images.  labelled: whether the discriminator takes their labels."""
    device = next(discriminator.parameters()).device
    at_once = max(1, _VALUES_AT_ONCE // images.pixels[0].numel())
    total = 0.0
    for part in torch.arange(len(images)).split(at_once):
        some = images.take(part.to(images.pixels.device)).to(device)
        logits = discriminator(normalised(some.pixels), some.labels if labelled else None)
        total += float(logits.double().sum())
    return total / len(images)
