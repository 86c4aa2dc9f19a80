"""Real images to score generated ones against, in the features of an extractor.

Each score says how it was measured, and only scores of the same measure can be compared. The
exception is the excess, (FCD - floor) / trace of the real features' covariance.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from training.data.images import DataError, Images
from training.run_folder.scores import Scores
from training.scoring.distances import (
    NEIGHBOURS,
    ROWS,
    frechet_distance,
    kernel_distance,
    kernel_within,
    mean_and_covariance,
    neighbour_distances,
)
from training.scoring.extractor import Extractor
from training.scoring.subject import Subject

IMAGES = 10_000
"""Number of generated images in a score, and of real ones, if the data set has twice as many."""
SELECTION_SEED = 2**62
"""Seed of the noise that snapshots are compared on. The chosen one is scored again on the next."""


class Seen(NamedTuple):
    """The output of the extractor for some images."""

    features: Tensor
    """(n, 128)."""
    predicted: Tensor
    """Predicted classes, (n,)."""
    labels: Tensor | None
    """True classes, (n or more,)."""


class Reference:
    """Real images to compare generated ones with. Their features are computed once."""

    def __init__(self, extractor: Extractor, real: Images, others: Images, split: str) -> None:
        """real, others: two disjoint sets of real images; equal numbers are used, at most 10,000.

        others: used for the floor, which is the FCD between two sets of real images.
        """
        count = min(IMAGES, len(real), len(others))
        self.count = count
        self.classes = len(real.classes)
        self.split = split
        self.extractor = extractor
        self._features, classes = extractor(real.pixels[:count])
        self._classes = classes.bincount(minlength=max(self.classes, 1))
        self._statistics = mean_and_covariance(self._features)
        self._radii = neighbour_distances(self._features)
        self._within = kernel_within(self._features)
        other_features, other_classes = extractor(others.pixels[:count])
        self.floor = frechet_distance(mean_and_covariance(other_features), self._statistics)
        self.real = Seen(self._features, classes, real.labels)
        self.others = Seen(other_features, other_classes, others.labels)
        self.trace = float(self._statistics[1].trace())

    def score(self, subject: Subject, seed: int) -> Scores:
        """The scores of images 0 to `count` of a seed."""
        fake, predicted = self.extractor.of_parts(subject.images(self.count, seed))
        fcd = frechet_distance(mean_and_covariance(fake), self._statistics)
        precision, recall, coverage = self._manifolds(fake)
        counts = predicted.bincount(minlength=len(self._classes))
        return Scores(
            fcd=fcd,
            excess=(fcd - self.floor) / self.trace,
            kid=kernel_distance(fake, self._features, self._within),
            precision=precision,
            recall=recall,
            coverage=coverage,
            class_tv=float((counts - self._classes).abs().sum() / (2 * self.count)),
            class_counts=counts.tolist(),
            real_class_counts=self._classes.tolist(),
            images=self.count,
            split=self.split,
            floor=self.floor,
            trace=self.trace,
            extractor=self.extractor.kind,
            extractor_sha256=self.extractor.sha256,
        )

    def _manifolds(self, fake: Tensor) -> tuple[float, float, float]:
        """Precision, recall and coverage of generated features."""
        fake_radii = neighbour_distances(fake)
        precise = 0
        recalled = torch.zeros(self.count, dtype=torch.bool, device=fake.device)
        covered = recalled.clone()
        for rows, radii in zip(fake.split(ROWS), fake_radii.split(ROWS), strict=True):
            distances = torch.cdist(rows, self._features)  # (rows, real)
            within = distances <= self._radii
            precise += int(within.any(1).sum())
            covered |= within.any(0)
            recalled |= (distances <= radii[:, None]).any(0)
        share = 1 / self.count
        return precise * share, int(recalled.sum()) * share, int(covered.sum()) * share


def reference_for(extractor: Extractor, images: Images, test: Images | None) -> Reference:
    """The reference to score against: the test images, or half of the training images.

    Raises:
        DataError: for too few images, or images that are all alike.
    """
    if len(images) < 2 * (NEIGHBOURS + 1):
        raise DataError(f"{len(images)} images are too few for scores, at least 12 are needed")
    half, other_half = split_reals(images, IMAGES)
    for real in (half, other_half):
        if bool((real.pixels == real.pixels[:1]).all()):
            raise DataError(
                f"{len(real)} of {len(images)} images are all alike, so nothing can be scored by "
                f"them: other images are needed"
            )
    if test is None:
        return Reference(extractor, half, other_half, "train")
    return Reference(extractor, test, half, "test")


def split_reals(images: Images, most: int | None = None) -> tuple[Images, Images]:
    """Two disjoint random halves of the images, the same each time; at most `most` of each."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    half = len(images) // 2
    count = half if most is None else min(half, most)
    return images.take(order[:count]), images.take(order[half : half + count])
