"""Check the arrays that a caller passes: images to fill, and z."""

import numpy as np
from numpy.typing import NDArray

_ROWS = 1024  # rows checked at once, because z may be large


def shape_of(count: int, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """The shape of images for callers: (count, H, W), in colour (count, H, W, 3)."""
    channels, height, width = image_shape
    return (count, height, width) if channels == 1 else (count, height, width, channels)


def images_and_pixels(
    count: int, image_shape: tuple[int, int, int], out: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An array for the caller's images, `out` or a new one, and a view of it as (n, H, W, C).

    Raises:
        ValueError: if `out` has another shape or type, is read-only, or overlaps itself.
    """
    shape = shape_of(count, image_shape)
    if out is None:
        out = np.empty(shape, np.uint8)
    elif not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.shape != shape:
        found = (getattr(out, "dtype", type(out)), getattr(out, "shape", "no shape"))
        raise ValueError(f"out must be a uint8 array of {shape}, got {found[0]} of {found[1]}")
    elif not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    elif _overlaps_itself(out):
        raise ValueError(f"out must hold each pixel once, got an array of strides {out.strides}")
    return out, (out[..., None] if image_shape[0] == 1 else out)


def _overlaps_itself(array: NDArray[np.uint8]) -> bool:
    """Whether pixels may share memory, as in `np.broadcast_to` and windows that slide.

    True also for a few views that interleave their axes without sharing memory.
    """
    if array.size == 0:  # its strides say nothing
        return False
    reach = 1  # bytes from the first to the last pixel of the axes with shorter strides
    for stride, size in sorted(zip(map(abs, array.strides), array.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return True
            reach += stride * (size - 1)
    return False


def apart(z: NDArray[np.floating], out: NDArray[np.uint8]) -> NDArray[np.floating]:
    """z, copied if writing to `out` could change it."""
    return z.copy() if np.may_share_memory(z, out) else z


def require_z(z: NDArray[np.floating], latent_dim: int) -> None:
    """Raise ValueError unless z is floating point (n, latent_dim) and finite in float32."""
    wanted = f"z must be floating point (n, {latent_dim})"
    if z.ndim != 2 or z.shape[1] != latent_dim:
        raise ValueError(f"{wanted}, got shape {z.shape}")
    if not np.issubdtype(z.dtype, np.floating):
        raise ValueError(f"{wanted}, got {z.dtype}")
    largest = np.finfo(np.float32).max
    for first in range(0, len(z), _ROWS):
        if not (np.abs(z[first : first + _ROWS]) <= largest).all():
            raise ValueError(f"{wanted} and finite in float32, got NaN or infinity")
