"""Images into files, batch by batch, in the memory of one batch; what is written is whole.

Told by the name: a grid (.png), an array (.npy, .npz), a folder of PNG files, or a pipe ("-").
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

from .files import atomic_write
from .pictures import ANIMATIONS, enlarge, grid, require_size, save_animation, save_png

PIPE = "-"
KINDS = "a .png, .npy or .npz file, a folder, or - for raw bytes"

_NUMBERED = re.compile(r"(\d{10,})\.png")


@dataclass(frozen=True)
class Job:
    """Which images a writer is to be given, and how to show them."""

    count: int
    image_shape: tuple[int, ...]
    """(H, W) or (H, W, 3)."""
    seed: int = 0
    start: int = 0
    captions: bool = False
    """Write "seed/index" below each image of a grid."""
    scale: int = 1
    """Pixels of a picture's side for each of an image."""
    names: Sequence[str] = ()
    """Of the class of each image, to write in its caption too."""


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
    """Write uint8 (n, H, W[, 3]) as the name says, whole or not at all.

    output: .png, one grid; .gif or .webp, a looped animation; .npy; .npz (images, seed, start); or
        a folder, for a PNG each, named by its index in ten digits.
    seed, start: of the first image, for .npz, names and captions.
    captions, scale: of a grid, see `Job`; scale also of an animation, of `fps` frames a second.
    force: write over what is there.

    Raises:
        ValueError: for another end of the name, or an array of another shape or type.
        FileExistsError: where something is there already.
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
    """What writes a job to an output; nothing is there yet, unless it may be written over.

    Raises:
        ValueError: for another end of the name.
        FileExistsError: where something is there already.
    """
    if os.fspath(output) == PIPE:
        if sys.stdout is None:
            raise OSError("stdout is closed, and nothing can be written to it")
        return PipeWriter(sys.stdout.buffer)
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
    """Raise FileExistsError where a file is there and may not be written over."""
    if not force and os.path.lexists(path):
        raise FileExistsError(
            f"{os.fspath(path)} is there already: name another, or pass force=True (--force)"
        )


class Writer(ABC):
    """Takes batches, and has a whole output at the end of its `with`, or none after an error.

    After a KeyboardInterrupt, what was taken is kept where it makes a whole output of its own.
    """

    def __init__(self) -> None:
        self.done = 0
        """Images that are written, or safe to be."""
        self._open = ExitStack()

    @abstractmethod
    def write(self, batch: NDArray[np.uint8]) -> None:
        """Take uint8 (n, H, W[, 3])."""

    def _finish(self) -> None:  # noqa: B027 - a folder has nothing to complete
        """Complete the output with the images that were taken."""

    def _keeps_parts(self) -> bool:
        return self.done > 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the output, or leave none."""
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
    """One picture of all images."""

    def __init__(self, path: Path, job: Job) -> None:
        super().__init__()
        require_size("picture", job.count, job.image_shape, job.scale)
        self._path, self._job = path, job
        self._batches: list[NDArray[np.uint8]] = []

    def write(self, batch: NDArray[np.uint8]) -> None:
        """Keep it for the picture."""
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
    """A PNG file for each image, named by its index."""

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
        """Write each image whole."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for image in batch:
            # A sync for each of a million would take hours.
            save_png(image, self._folder / f"{self._job.start + self.done:010d}.png", sync=False)
            self.done += 1


class NpyWriter(Writer):
    """One array of all images, whose header is put right should there be fewer of them."""

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
        """Begin the file under another name."""
        self._file: BinaryIO = self._open.enter_context(atomic_write(self._path))
        self._begin()
        return self

    def _begin(self) -> None:
        _write_header(self._file, (self._job.count, *self._job.image_shape))
        self._first = self._file.tell()

    def write(self, batch: NDArray[np.uint8]) -> None:
        """Append it to the file."""
        self._file.write(np.ascontiguousarray(batch).data)
        self.done += len(batch)

    def _finish(self) -> None:
        # An interrupted write may have left the beginning of another batch.
        shape = (self.done, *self._job.image_shape)
        self._file.truncate(self._first + int(np.prod(shape)))
        self._file.seek(0)
        _write_header(self._file, shape)  # as long as before: numpy leaves room for any count


class NpzWriter(NpyWriter):
    """The array, and the seed and index of its first image."""

    _copies = 2

    def __enter__(self) -> Self:
        """Begin an array without a name, since a zip file's parts cannot be changed later."""
        folder = self._path.parent
        self._file = self._open.enter_context(tempfile.TemporaryFile(dir=folder))
        self._begin()
        return self

    def _finish(self) -> None:
        from zipfile import ZipFile, ZipInfo

        super()._finish()
        self._file.seek(0)
        with atomic_write(self._path) as file, ZipFile(file, "w") as archive:
            # ZipInfo names no time: equal images give equal files.
            with archive.open(ZipInfo("images.npy"), "w", force_zip64=True) as member:
                shutil.copyfileobj(self._file, member, 2**20)
            for name in ("seed", "start"):
                with archive.open(ZipInfo(f"{name}.npy"), "w") as member:
                    npy.write_array(member, np.asarray(getattr(self._job, name), np.int64))


class PipeWriter(Writer):
    """The pixels of all images as bytes, without any header."""

    def __init__(self, pipe: BinaryIO) -> None:
        super().__init__()
        self._pipe = pipe

    def write(self, batch: NDArray[np.uint8]) -> None:
        """Write it."""
        self._pipe.write(np.ascontiguousarray(batch).data)
        self.done += len(batch)

    def _finish(self) -> None:
        self._pipe.flush()


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
