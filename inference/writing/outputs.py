"""Write images to files batch by batch, in the memory of one batch.

The name of the output decides: a grid (.png), an array (.npy, .npz), a folder of PNG files, or a
pipe ("-").
"""

import os
import re
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .console import bytes_of_stdout
from .files import atomic_write
from .pictures import ANIMATIONS, enlarge, grid, require_size, save_animation, save_png

PIPE = "-"
KINDS = "a .png, .npy or .npz file, a folder, or - for raw bytes"

_NUMBERED = re.compile(r"(\d{10,})\.png")


@dataclass(frozen=True)
class Job:
    """Which images a writer will receive, and how to show them."""

    count: int
    image_shape: tuple[int, ...]
    """(H, W) or (H, W, 3)."""
    seed: int = 0
    start: int = 0
    captions: bool = False
    """Write "seed/index" below each image of a grid."""
    scale: int = 1
    """Size in the picture of each pixel of an image."""
    names: Sequence[str] = ()
    """The name of each image's class, for its caption."""


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

    output: .png for a grid; .gif or .webp for a looped animation; .npy; .npz (images, seed, start);
        or a folder, with a PNG file for each image, named by its index in ten digits.
    seed, start: seed and index of the first image, for .npz, file names and captions.
    captions, scale: of a grid, see `Job`; scale also applies to an animation.
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
        save_animation(enlarge(images, scale), output, fps=fps)
        return
    job = Job(len(images), images.shape[1:], seed, start, captions, scale)
    with writer_for(output, job, force=force) as writer:
        writer.write(images)


def writer_for(output: str | os.PathLike[str], job: Job, *, force: bool = False) -> "Writer":
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
    kinds = {".png": GridWriter, ".npy": NpyWriter, ".npz": NpzWriter}
    if path.suffix.lower() not in kinds:
        raise ValueError(f"the output must be {KINDS}, got {os.fspath(output)!r}")
    require_free(path, force=force)
    return kinds[path.suffix.lower()](path, job)


def require_free(path: str | os.PathLike[str], *, force: bool) -> None:
    """Raise FileExistsError if a file exists and must not be overwritten."""
    if not force and os.path.lexists(path):
        raise FileExistsError(
            f"{os.fspath(path)} is there already: name another, or pass force=True (--force)"
        )


class Writer(ABC):
    """A context manager that takes batches. The output is complete at its end, or absent on error.

    After a KeyboardInterrupt the images so far are kept, if they make a complete output.
    """

    def __init__(self) -> None:
        self.done = 0
        """Number of images that are written, or that will be."""
        self._open = ExitStack()

    @abstractmethod
    def write(self, batch: NDArray[np.uint8]) -> None:
        """Take the next images, uint8 (n, H, W[, 3])."""

    def _finish(self) -> None:  # noqa: B027 - a folder has nothing to complete
        """Complete the output with the images so far."""

    def _keeps_parts(self) -> bool:
        return self.done > 0

    def __enter__(self) -> Self:
        """Open the output."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the output, or remove it."""
        if error is None or (isinstance(error, KeyboardInterrupt) and self._keeps_parts()):
            try:
                self._finish()
            except BaseException:
                self._open.__exit__(*sys.exc_info())
                raise
            self._open.close()
        else:
            self._open.__exit__(kind, error, trace)


class GridWriter(Writer):
    """Writes one grid of all images."""

    def __init__(self, path: Path, job: Job) -> None:
        super().__init__()
        require_size("picture", job.count, job.image_shape, job.scale)
        self._path, self._job = path, job
        self._batches: list[NDArray[np.uint8]] = []

    def write(self, batch: NDArray[np.uint8]) -> None:
        """Keep the images for the grid."""
        self._batches.append(batch)

    def _finish(self) -> None:
        job = self._job
        images = np.concatenate(self._batches)
        indices = range(job.start, job.start + len(images))
        captions = [f"{job.seed}/{index}" for index in indices] if job.captions else []
        if captions and job.names:
            captions = [f"{text} {name}" for text, name in zip(captions, job.names, strict=False)]
        save_png(grid(enlarge(images, job.scale), captions=captions), self._path)
        self.done = len(images)


class FolderWriter(Writer):
    """Writes a PNG file for each image, named by its index."""

    def __init__(self, folder: Path, job: Job, *, force: bool) -> None:
        super().__init__()
        self._folder, self._job = folder, job
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        numbers = [_NUMBERED.fullmatch(name) for name in there]
        taken = [int(number[1]) for number in numbers if number]
        others = [name for name, number in zip(there, numbers, strict=True) if not number]
        if others and not force:
            raise FileExistsError(
                f"{folder} holds other files ({', '.join(others[:3])}): name an empty or a new "
                f"folder, or pass force=True (--force)"
            )
        last = job.start + job.count - 1
        inside = [number for number in taken if job.start <= number <= last]
        if inside and not force:
            raise FileExistsError(
                f"{folder} holds {len(inside)} of these images already, {min(inside)} to "
                f"{max(inside)}: start behind them, name another folder, or pass force=True "
                f"(--force)"
            )

    def write(self, batch: NDArray[np.uint8]) -> None:
        """Write each image atomically."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for image in batch:
            # With fsync, a million files would take hours.
            save_png(image, self._folder / f"{self._job.start + self.done:010d}.png", sync=False)
            self.done += 1


class NpyWriter(Writer):
    """Writes one array of all images. After an interruption its header is corrected."""

    _copies = 1
    """How often the images lie on the disk for a moment."""

    def __init__(self, path: Path, job: Job) -> None:
        super().__init__()
        self._path, self._job = path, job
        size = self._copies * job.count * prod(job.image_shape)
        if path.parent.is_dir() and size > (free := shutil.disk_usage(path.parent).free):
            raise ValueError(
                f"{job.count:,} images need {size / 1e9:,.1f} GB, and {path.parent} has "
                f"{free / 1e9:,.1f} GB left"
            )

    def __enter__(self) -> Self:
        """Open the file, under a temporary name."""
        self._file: BinaryIO = self._open.enter_context(atomic_write(self._path))
        self._begin()
        return self

    def _begin(self) -> None:
        _write_header(self._file, (self._job.count, *self._job.image_shape))
        self._first = self._file.tell()

    def write(self, batch: NDArray[np.uint8]) -> None:
        """Append the images to the file."""
        self._file.write(np.ascontiguousarray(batch).data)
        self.done += len(batch)

    def _finish(self) -> None:
        # An interrupted write may have left a part of another batch.
        shape = (self.done, *self._job.image_shape)
        self._file.truncate(self._first + int(np.prod(shape)))
        self._file.seek(0)
        _write_header(
            self._file, shape
        )  # The header keeps its length, because numpy pads it for any count.


class NpzWriter(NpyWriter):
    """Writes an archive of the array, the seed, and the index of the first image."""

    _copies = 2

    def __enter__(self) -> Self:
        """Open a temporary file, because the parts of a zip archive cannot be changed later."""
        folder = self._path.parent
        self._file = self._open.enter_context(tempfile.TemporaryFile(dir=folder))
        self._begin()
        return self

    def _finish(self) -> None:
        from zipfile import ZipFile, ZipInfo

        super()._finish()
        self._file.seek(0)
        with atomic_write(self._path) as file, ZipFile(file, "w") as archive:
            # ZipInfo has no time of its own, so equal images give equal files.
            with archive.open(ZipInfo("images.npy"), "w", force_zip64=True) as member:
                shutil.copyfileobj(self._file, member, 2**20)
            for name in ("seed", "start"):
                with archive.open(ZipInfo(f"{name}.npy"), "w") as member:
                    npy.write_array(member, np.asarray(getattr(self._job, name), np.int64))


class PipeWriter(Writer):
    """Writes the pixels of all images as raw bytes to stdout."""

    def __init__(self, pipe: BinaryIO) -> None:
        super().__init__()
        self._pipe = pipe

    def write(self, batch: NDArray[np.uint8]) -> None:
        """Write the images."""
        self._pipe.write(np.ascontiguousarray(batch).data)
        self.done += len(batch)

    def _finish(self) -> None:
        self._pipe.flush()


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
