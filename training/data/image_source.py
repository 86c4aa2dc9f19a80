"""The files in a folder or a zip archive: which are images, and which are left out."""

import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from training.data.image_file import suffixes
from training.data.images import DataError

_MOST_BYTES = 2**28  # of an unpacked file in an archive


@dataclass(frozen=True)
class ImageFile:
    """A file that has the ending of an image."""

    place: PurePath
    """Its path in the folder or archive."""
    shown: str
    """Its name in messages."""
    open: Callable[[], BinaryIO]


@dataclass
class Found:
    """The content of a folder or an archive."""

    files: list[ImageFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """How many of each kind: an ending such as ".txt", or a few words."""

    def take(self, file: ImageFile) -> None:
        """Take a file, or leave it out because of its ending. Hidden files do not count."""
        if any(part.startswith(".") or part == "__MACOSX" for part in file.place.parts):
            return
        ending = file.place.suffix.lower()
        if ending in suffixes():
            self.files.append(file)
        else:
            self.left_out[ending or "no ending"] += 1

    def left_out_in_words(self) -> str:
        """A line about the files left out; empty if there are none."""
        count = self.left_out.total()
        kinds = ", ".join(f"{kind} ({number:,})" for kind, number in self.left_out.most_common(10))
        return f"{count:,} file{'s' * (count > 1)} left out: {kinds}" if count else ""


def find_images(dataset: Path) -> Found:
    """The images below a folder or in a zip archive, sorted by their paths.

    Links are followed, except to a folder that contains them.

    Raises:
        DataError: for a folder that may not be read, an archive that is damaged, and for names
            that are not UTF-8.
    """
    found = Found()
    if dataset.is_dir():
        _walk(dataset, dataset, (), found)
    else:
        _unpack(dataset, found)
    found.files.sort(key=lambda file: file.place)
    for file in found.files:
        try:
            str(file.place).encode()
        except UnicodeEncodeError:
            raise DataError(
                f"the name {os.fsencode(file.place)!r} in {dataset} is not UTF-8: rename it"
            ) from None
    return found


def _walk(folder: Path, top: Path, above: tuple[tuple[int, int], ...], found: Found) -> None:
    """Take the files of a folder and its subfolders.  above: the folders that contain it."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read ({error.strerror}): change its permissions, or move it away"
        ) from None
    own = status.st_dev, status.st_ino
    if own in above:
        found.left_out["links to a folder that holds them"] += 1
        return
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            _walk(path, top, (*above, own), found)
        elif entry.is_file():
            found.take(_file(path, top))
        elif entry.is_symlink():
            found.left_out["links to nothing"] += 1
        else:
            found.left_out["no regular files"] += 1


def _file(path: Path, top: Path) -> ImageFile:
    return ImageFile(path.relative_to(top), str(path), lambda: path.open("rb"))


def _unpack(archive: Path, found: Found) -> None:
    try:
        # Stays open as long as its members can be read: to open it again reads its whole list.
        opened = zipfile.ZipFile(archive)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive} is no zip archive that can be read: {error}") from None
    for info in opened.infolist():
        if not info.is_dir():
            found.take(_member(opened, f"{archive}/{info.filename}", info))


def _member(archive: zipfile.ZipFile, shown: str, info: zipfile.ZipInfo) -> ImageFile:
    def read() -> BinaryIO:
        if info.file_size > _MOST_BYTES:
            raise ValueError(f"{info.file_size:,} bytes unpacked, {_MOST_BYTES:,} at most are read")
        return io.BytesIO(archive.read(info))

    return ImageFile(PurePosixPath(info.filename), shown, read)
