"""Write images to files batch by batch, in the memory of one batch.

The name of the output decides: a grid (.png), an array (.npy, .npz), a folder of PNG files, or a
pipe ("-").
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .array_files import NpyWriter, NpzWriter, PipeWriter
from .console import bytes_of_stdout
from .files import make_folder_of
from .picture_files import FolderWriter, GridWriter
from .pictures import ANIMATIONS, PICTURES, enlarge, save_animation
from .writer import Job, Writer

__all__ = ["KINDS", "PIPE", "Job", "Writer", "require_free", "save", "writer_for"]

PIPE = "-"
KINDS = "a .png, .jpg, .npy or .npz file, a folder, or - for raw bytes"


def save(
    images: NDArray[np.uint8],
    output: str | os.PathLike[str],
    *,
    seed: int = 0,
    start: int = 0,
    captions: bool = False,
    scale: int = 1,
    fps: float = 20,
    force: bool = False,
) -> None:
    """Write images, uint8 (n, H, W[, 3]), atomically, in the format that the name says.

    output: .png or .jpg for a grid; .gif or .webp for a looped animation; .npy; .npz (images, seed,
        start); or a folder, with a PNG file for each image, named by its index in ten digits.
        Missing folders are made.
    seed, start: seed and index of the first image, for .npz, file names and captions.
    captions, scale: for a grid, see `Job`. An animation uses the scale, too.
    fps: frames of an animation in a second.
    force: overwrite an existing output.

    Raises:
        ValueError: for an unknown ending of the name, or an array of another shape or type.
        FileExistsError: if the output exists already.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim not in {3, 4} or images.shape[3:] not in {(), (3,)}:
        raise ValueError(
            f"images must be uint8 (n, H, W) or (n, H, W, 3), got {images.dtype} {images.shape}"
        )
    if Path(output).suffix.lower() in ANIMATIONS.keys() - {".png"}:
        require_free(output, force=force)
        make_folder_of(output)
        save_animation(enlarge(images, scale), output, fps=fps)
        return
    job = Job(len(images), images.shape[1:], seed, start, captions, scale)
    with writer_for(output, job, force=force) as writer:
        writer.write(images)


def writer_for(output: str | os.PathLike[str], job: Job, *, force: bool = False) -> Writer:
    """The writer for an output.  force: overwrite an existing output.

    Raises:
        ValueError: for an unknown ending of the name.
        FileExistsError: if the output exists already.
    """
    if os.fspath(output) == PIPE:
        return PipeWriter(bytes_of_stdout())
    if not os.fspath(output):
        raise ValueError(f"the output must be {KINDS}, got an empty name")
    path = Path(output)
    if path.is_dir() or not path.suffix or os.fspath(output).endswith(("/", os.sep)):
        return FolderWriter(path, job, force=force)
    kinds: dict[str, type[GridWriter | NpyWriter]]
    kinds = {**dict.fromkeys(PICTURES, GridWriter), ".npy": NpyWriter, ".npz": NpzWriter}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"the output must be {KINDS}, got {os.fspath(output)!r}")
    require_free(path, force=force)
    return kinds[path.suffix.lower()](path, job)


def require_free(path: str | os.PathLike[str], *, force: bool) -> None:
    """Raise FileExistsError if a file exists and must not be overwritten."""
    if not force and os.path.lexists(path):
        raise FileExistsError(
            f"{os.fspath(path)} exists: name another file, or pass force=True (--force)"
        )
