"""Writers of pictures: one grid of all images, or a folder with a file for each image."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .files import make_folder_of, remove_abandoned
from .pictures import enlarge, grid, require_size, save_picture, save_png
from .room import require_files
from .writer import Job, Writer

_NUMBERED = re.compile(r"(\d{10,})\.png")


class GridWriter(Writer):
    """Writes one grid of all images."""

    def __init__(self, path: Path, job: Job) -> None:
        super().__init__()
        require_size("picture", job.count, job.image_shape, job.scale)
        remove_abandoned(path.parent, path.name)
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
        make_folder_of(self._path)
        save_picture(grid(enlarge(images, job.scale), captions=captions), self._path)
        self.done = len(images)


class FolderWriter(Writer):
    """Writes a PNG file for each image, named by its index."""

    def __init__(self, folder: Path, job: Job, *, force: bool) -> None:
        super().__init__()
        self._folder, self._job = folder, job
        remove_abandoned(folder)
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
                f"{max(inside)}: start after them, name another folder, or pass force=True "
                f"(--force)"
            )
        require_files(folder / "image", job.count, f"{job.count:,} files")

    def write(self, batch: NDArray[np.uint8]) -> None:
        """Write each image atomically."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for image in batch:
            # With fsync, a million files would take hours.
            save_png(image, self._folder / f"{self._job.start + self.done:010d}.png", sync=False)
            self.done += 1
