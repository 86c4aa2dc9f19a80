"""Distances between sets of features, and between images."""

import torch
from torch import Tensor

NEIGHBOURS = 5  # k of the nearest neighbours; 5 as in Naeem et al. 2020
ROWS = 2500  # rows of a distance matrix that are computed at once
_VALUES = 2**22  # pixels that are converted to float32 at once


def nearest(pixels: Tensor, others: Tensor, *, skip: int = 0) -> tuple[Tensor, Tensor]:
    """For each image the nearest of `others`: distances (n,) in grey levels, and indices (n,).

    pixels, others: uint8 (n, C, H, W), (m, C, H, W).  The distance is the root mean square over
    the pixels.  skip: number of nearer images to ignore.
    """
    flat = pixels.flatten(1).float()
    rows = min(ROWS, max(1, _VALUES // flat.shape[1]))
    distances = [torch.cdist(flat, part.flatten(1).float()) for part in others.split(rows)]
    found = torch.cat(distances, dim=1).topk(skip + 1, largest=False)
    return found.values[:, -1] / flat.shape[1] ** 0.5, found.indices[:, -1]


def frechet_distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^½) of two normal distributions (m, C).

    Dowson and Landau 1982, equation 4. The symmetric matrix C_a^½ C_b C_a^½ has the same
    eigenvalues as C_a C_b, so the trace of the root is the sum of their roots.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = a, b
    values, vectors = torch.linalg.eigh(covariance_a)
    root_a = vectors * values.clamp(min=0).sqrt() @ vectors.T
    eigenvalues = torch.linalg.eigvalsh(root_a @ covariance_b @ root_a)
    trace = covariance_a.trace() + covariance_b.trace() - 2 * eigenvalues.clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + trace)


def kernel_distance(a: Tensor, b: Tensor, within_b: float | None = None) -> float:
    """Unbiased MMD^2 of features (n, d) under (x·y / d + 1)^3, over all pairs at once.

    within_b: `kernel_within(b)`, if it is already known.
    """
    within_b = kernel_within(b) if within_b is None else within_b
    return kernel_within(a) + within_b - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def kernel_within(a: Tensor) -> float:
    """The mean of the kernel over all pairs of different points of a."""
    total = -float(((a.square().sum(1) / a.shape[1] + 1) ** 3).double().sum())
    for first in range(
        0, len(a), ROWS
    ):  # the matrix is symmetric: count each pair above the diagonal twice
        rows, others = a[first : first + ROWS], a[first + ROWS :]
        total += _kernel_sum(rows, rows) + 2 * _kernel_sum(rows, others)
    return total / (len(a) * (len(a) - 1))


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    total = 0.0
    for rows in a.split(ROWS):
        base = torch.addmm(torch.ones((), device=a.device), rows, b.T, alpha=1 / a.shape[1])
        total += float((base * base).mul_(base).sum(1).double().sum())
    return total


def mean_and_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and covariance (d, d) of features (n, d), in float64."""
    features = features.double()
    return features.mean(0), features.T.cov()


def neighbour_distances(features: Tensor) -> Tensor:
    """The distance (n,) of each point from its k-th nearest neighbour."""
    rows = [torch.cdist(part, features) for part in features.split(ROWS)]
    return torch.cat([part.topk(NEIGHBOURS + 1, largest=False).values[:, -1] for part in rows])
