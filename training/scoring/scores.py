"""Scores that say how good generated images are, in the features of an extractor.

Every score names what it was measured with; two scores compare only if that is the same. The
excess, (FCD - floor) / trace of the real features' covariance, compares across extractors too.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.data.datasets import DataError, Images
from training.gan.networks import Generator, drawn_inputs, to_pixels
from training.scoring.extractor import Extractor

IMAGES = 10_000
"""Generated, and real, images in a score, where the data set has twice as many."""
SELECTION_SEED = 2**62
"""Noise that checkpoints are compared on; the one chosen is scored again on the next seed's."""

Draw = Callable[..., Tensor]
"""z float32 (n, latent_dim), and int64 labels (n,) if it takes them -> uint8 (n, C, H, W), on the
extractor's device."""

_NEIGHBOURS = 5  # as Naeem et al. 2020 for all four of these scores
_PART = 1000  # images drawn at once
_ROWS = 2500  # of a distance matrix at once


@dataclass(frozen=True)
class Scores:
    """How near generated images are to real ones, and how that was measured."""

    fcd: float
    """Fréchet classifier distance, as Heusel et al. 2017 (arXiv 1706.08500) in other features."""
    excess: float
    """(FCD - floor) / trace: 0 for real images, 1 for far away."""
    kid: float
    """Unbiased squared MMD with a cubic kernel. Bińkowski et al. 2018, arXiv 1801.01401."""
    precision: float
    """Share of generated images within the real ones. Kynkäänniemi et al. 2019, k = 5."""
    recall: float
    """Share of real images within the generated ones. Kynkäänniemi et al. 2019, k = 5."""
    coverage: float
    """Share of real images with a generated one near. Naeem et al. 2020, k = 5."""
    class_tv: float
    """Total variation between the predicted classes of generated and real images, 0 … 1."""
    class_counts: list[int]
    """Generated images by predicted class."""
    real_class_counts: list[int]
    """The same of real images."""
    images: int
    """Generated images, and real ones."""
    split: str
    """Which real ones: "train" or "test"."""
    floor: float
    """FCD of as many other real images."""
    trace: float
    """Of the covariance of the real images' features."""
    extractor: str
    """"shipped", "trained" or "random"."""
    extractor_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


class Seen(NamedTuple):
    """Images as the extractor sees them."""

    features: Tensor
    """(n, 128)."""
    predicted: Tensor
    """The classes that it takes them for, (n,)."""
    labels: Tensor | None
    """Their own, (n or more,)."""


class Reference:
    """Real images to compare generated ones with, their features taken once."""

    def __init__(self, extractor: Extractor, real: Images, others: Images, split: str) -> None:
        """real, others: real images without a common one; as many are used of both, at most 10,000.

        others: for the floor, the distance that real images have from one another.
        """
        count = min(IMAGES, len(real), len(others))
        self.count = count
        self.classes = len(real.classes)
        self.split = split
        self.extractor = extractor
        self._features, classes = extractor(real.pixels[:count])
        self._classes = classes.bincount(minlength=max(self.classes, 1))
        self._statistics = mean_and_covariance(self._features)
        self._radii = _neighbour_distances(self._features)
        self._within = kernel_within(self._features)
        other_features, other_classes = extractor(others.pixels[:count])
        self.floor = frechet_distance(mean_and_covariance(other_features), self._statistics)
        self.real = Seen(self._features, classes, real.labels)
        self.others = Seen(other_features, other_classes, others.labels)
        self.trace = float(self._statistics[1].trace())

    def score(self, draw: Draw, latent_dim: int, seed: int, classes: int = 0) -> Scores:
        """The scores of images 0 to `count` of a seed.

        classes: labels that the generator takes, which are drawn; 0 for an unconditional one.
        """
        given = drawn_inputs(latent_dim, classes, self.count, seed=seed)
        fake, predicted = self.extractor(draw_all(draw, given))
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
        """Precision, recall and coverage."""
        fake_radii = _neighbour_distances(fake)
        precise = 0
        recalled = torch.zeros(self.count, dtype=torch.bool, device=fake.device)
        covered = recalled.clone()
        for rows, radii in zip(fake.split(_ROWS), fake_radii.split(_ROWS), strict=True):
            distances = torch.cdist(rows, self._features)  # (rows, real)
            within = distances <= self._radii
            precise += int(within.any(1).sum())
            covered |= within.any(0)
            recalled |= (distances <= radii[:, None]).any(0)
        share = 1 / self.count
        return precise * share, int(recalled.sum()) * share, int(covered.sum()) * share


def reference_for(extractor: Extractor, images: Images, test: Images | None) -> Reference:
    """The reference to score against: the test images, or without them half of the others.

    Raises:
        DataError: for too few images.
    """
    if len(images) < 2 * (_NEIGHBOURS + 1):
        raise DataError(f"{len(images)} images are too few to score by, at least 12 are needed")
    half, other_half = split_reals(images, IMAGES)
    if test is None:
        return Reference(extractor, half, other_half, "train")
    return Reference(extractor, test, half, "test")


def split_reals(images: Images, most: int | None = None) -> tuple[Images, Images]:
    """Two disjoint halves of the images, in an order of their own, or the first `most` of each."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    half = len(images) // 2
    count = half if most is None else min(half, most)
    return images.take(order[:count]), images.take(order[half : half + count])


def nearest(pixels: Tensor, others: Tensor, *, skip: int = 0) -> tuple[Tensor, Tensor]:
    """For each image the nearest of `others`: distances (n,) in grey levels, and indices (n,).

    pixels, others: uint8 (n, C, H, W), (m, C, H, W).  The distance is the root mean square over
    the pixels.  skip: how many nearer ones to pass over.
    """
    flat = pixels.flatten(1).float()
    distances = [torch.cdist(flat, part.flatten(1).float()) for part in others.split(_ROWS)]
    found = torch.cat(distances, dim=1).topk(skip + 1, largest=False)
    return found.values[:, -1] / flat.shape[1] ** 0.5, found.indices[:, -1]


def drawing_with(generator: Generator, device: torch.device) -> Draw:
    """The `draw` of `Reference.score` for a generator."""

    @torch.no_grad()
    def draw(*inputs: Tensor) -> Tensor:
        images = generator(*(tensor.to(device) for tensor in inputs))
        return to_pixels(images).permute(0, 3, 1, 2)

    return draw


def frechet_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^½) of two normal distributions (m, C).

    Dowson and Landau 1982, equation 4. The root's trace is taken from the eigenvalues of the
    symmetric C_a^½ C_b C_a^½, which has the same.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = a, b
    values, vectors = torch.linalg.eigh(covariance_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    eigenvalues = torch.linalg.eigvalsh(root_a @ covariance_b @ root_a)
    trace = covariance_a.trace() + covariance_b.trace() - 2 * eigenvalues.clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + trace)


def kernel_distance(a: Tensor, b: Tensor, within_b: float | None = None) -> float:
    """Unbiased MMD^2 of features (n, d) under (x·y / d + 1)^3, over all pairs at once.

    within_b: `kernel_within(b)`, where it is known already.
    """
    within_b = kernel_within(b) if within_b is None else within_b
    return kernel_within(a) + within_b - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def kernel_within(a: Tensor) -> float:
    """The mean of the kernel over all pairs of different points of a."""
    total = -float(((a.square().sum(1) / a.shape[1] + 1) ** 3).double().sum())
    for first in range(0, len(a), _ROWS):  # the pairs below the diagonal are those above it
        rows, others = a[first : first + _ROWS], a[first + _ROWS :]
        total += _kernel_sum(rows, rows) + 2 * _kernel_sum(rows, others)
    return total / (len(a) * (len(a) - 1))


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    total = 0.0
    for rows in a.split(_ROWS):
        base = torch.addmm(torch.ones((), device=a.device), rows, b.T, alpha=1 / a.shape[1])
        total += float((base * base).mul_(base).sum(1).double().sum())
    return total


def draw_all(draw: Draw, inputs: tuple[Tensor, ...]) -> Tensor:
    """The images of many inputs, drawn in parts."""
    parts = zip(*(tensor.split(_PART) for tensor in inputs), strict=True)
    return torch.cat([draw(*part) for part in parts])


def mean_and_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Of features (n, d): (d,) and (d, d), in float64."""
    features = features.double()
    return features.mean(0), features.T.cov()


def _neighbour_distances(features: Tensor) -> Tensor:
    """Each point's distance (n,) from its k-th neighbour, the point itself not counted."""
    rows = [torch.cdist(part, features) for part in features.split(_ROWS)]
    return torch.cat([part.topk(_NEIGHBOURS + 1, largest=False).values[:, -1] for part in rows])
