"""Atomic files: complete, or not there."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.tmp")


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, keep_as: Path | None = None, sync: bool = True
) -> Iterator[BinaryIO]:
    """A file to write to, which replaces `path` only when it is complete on the disk.

    The file has a temporary name in the same folder until it is fsynced and renamed. On an error it
    is removed.

    keep_as: new path for the file that was at `path` before, in the same folder.
    sync: whether to fsync, so that the file survives a power failure; much slower.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a process with the same number that was killed
        with temporary.open("xb") as file:  # never through a link
            _lock(file)
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if keep_as is not None and path.exists():
            path.replace(keep_as)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync and os.name == "posix":  # other systems cannot open a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(folder: Path, *, seconds: float = 0.0) -> None:
    """Remove temporary files of killed writers from a folder, if they have at least this age."""
    for path in folder.glob(".*.tmp"):
        if is_temporary(path):
            with suppress(FileNotFoundError):  # its writer may still be running, and rename it
                if time.time() - path.lstat().st_mtime >= seconds:
                    path.unlink()


def is_temporary(path: Path) -> bool:
    """Whether a path is a file, or a link, that has the temporary name of one being written."""
    if not _TEMPORARY.fullmatch(path.name):
        return False
    return path.is_symlink() or path.is_file()


def make_folder_of(path: str | os.PathLike[str]) -> None:
    """Make the folder of a file, and those above it, if they are missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)


def remove_abandoned(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files of writers that were killed.  name: only for files of this name.

    A writer holds a lock on its file, which ends with it.
    """
    if not folder.is_dir():
        return
    for path in folder.glob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if not found or name not in {None, found["name"]}:
            continue
        if path.is_file() and not path.is_symlink() and not _is_alive(int(found["process"])):
            with suppress(OSError):  # another process was faster, or still writes
                with path.open("rb+") as file:
                    _lock(file)
                path.unlink()


def _lock(file: BinaryIO) -> None:
    """Lock a file, or raise BlockingIOError; some systems and disks have no locks."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def _is_alive(process: int) -> bool:
    """Whether a process of this machine has this number; where that cannot be told, True."""
    if os.name != "posix":  # elsewhere, signal 0 ends a process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
