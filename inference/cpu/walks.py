"""Paths through latent space."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NEARLY_PARALLEL = 1e-6  # radians; at smaller angles chord and arc are equal


def interpolate(z_a: ArrayLike, z_b: ArrayLike, steps: int) -> NDArray[np.float32]:
    """`steps` points from z_a to z_b along an arc, both ends included: float32 (steps, latent_dim).

    Spherical interpolation (Shoemake, SIGGRAPH 1985; for latents White, arXiv 1609.04468): the
    points have the length of a typical z, while those on a straight line would be too short.
    Between opposite points, where the arc is not unique, and from zero, the path is a straight
    line.

    Raises:
        ValueError: unless z_a and z_b are finite and have one shape (latent_dim,), and steps >= 2.
    """
    a, b = (np.asarray(z, np.float64) for z in (z_a, z_b))
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"z_a and z_b must be (latent_dim,), got shapes {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("z_a and z_b must be finite, got NaN or infinity")
    if steps < 2:
        raise ValueError(f"steps must be 2 or more, both ends are among them, got {steps}")
    t = np.linspace(0, 1, steps)[:, None]
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    angle = np.arccos(np.clip(a @ b / lengths, -1, 1)) if lengths else 0.0
    if min(angle, np.pi - angle) < _NEARLY_PARALLEL:
        points = (1 - t) * a + t * b
    else:
        points = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    points[0], points[-1] = a, b  # both ends exactly
    return points.astype(np.float32)


def closed_walk(z: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """A loop from each z to the next, and from the last to the first: (n * steps, latent_dim).

    There are `steps` points from one z to the next, without the next.
    """
    legs = zip(z, np.roll(z, -1, axis=0), strict=True)
    return np.concatenate([interpolate(a, b, steps + 1)[:-1] for a, b in legs])
