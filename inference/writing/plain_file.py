"""Read a file of unknown origin, if it is a plain file and not too large."""

import errno
import os
import stat
import sys
from io import BufferedReader
from pathlib import Path


def read_plain(path: str | os.PathLike[str], most: int) -> bytes:
    """The content of a plain file of at most `most` bytes.

    A pipe or a device may have no end, and a file may grow while it is read.

    Raises:
        OSError: if the file does not exist, may not be read, is no plain file, or is larger. Its
            `strerror` says what is wrong.
    """
    with open_plain(path, most) as file:
        content = file.read(most + 1)
    _require_size(len(content), Path(path), most)
    return content


def open_plain(path: str | os.PathLike[str], most: int = sys.maxsize) -> BufferedReader:
    """Open a plain file of at most `most` bytes for reading. Never waits.

    Raises:
        OSError: as `read_plain`.
    """
    path = Path(path)
    try:
        _require_plain(path.stat(), path, most)  # first, because opening a device may change it
        # Without O_NONBLOCK, a pipe that has replaced the file meanwhile would block here.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file: BufferedReader = os.fdopen(os.open(path, flags), "rb")
    except ValueError as error:  # the path has a NUL or half a character
        raise OSError(errno.EINVAL, f"its path is impossible ({error})", str(path)) from None
    try:
        _require_plain(os.fstat(file.fileno()), path, most)
    except OSError:
        file.close()
        raise
    return file


def _require_plain(status: os.stat_result, path: Path, most: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no plain file but a pipe or a device", str(path))
    _require_size(status.st_size, path, most)


def _require_size(size: int, path: Path, most: int) -> None:
    if size > most:
        raise OSError(
            errno.EFBIG, f"{size:,} bytes are absurd: at most {most:,} are read", str(path)
        )
