"""Writers of arrays: .npy, .npz, and raw bytes to a pipe."""

import shutil
import tempfile
from math import prod
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .files import atomic_write, make_folder_of, remove_abandoned
from .room import require_disk
from .writer import Job, Writer


class NpyWriter(Writer):
    """Writes one array of all images. After an interruption its header is corrected."""

    _copies = 1
    """How many copies of the images are on the disk for a moment."""

    def __init__(self, path: Path, job: Job) -> None:
        super().__init__()
        self._path, self._job = path, job
        size = self._copies * job.count * prod(job.image_shape)
        remove_abandoned(path.parent, path.name)
        require_disk(path, size, f"{job.count:,} images")

    def __enter__(self) -> Self:
        """Open the file, under a temporary name."""
        make_folder_of(self._path)
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
        # The header keeps its length, because numpy pads it for any count.
        _write_header(self._file, shape)


class NpzWriter(NpyWriter):
    """Writes an archive of the array, the seed, and the index of the first image."""

    _copies = 2

    def __enter__(self) -> Self:
        """Open a temporary file, because the parts of a zip archive cannot be changed later."""
        make_folder_of(self._path)
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
