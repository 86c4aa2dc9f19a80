"""Files that are whole or not there."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], *, keep_as: Path | None = None, sync: bool = True
) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` only once all of it is on the disk.

    Written under a temporary name in the same folder, fsynced and renamed; removed on an error.
    keep_as: what the file that was there before is then called, in the same folder.
    sync: whether it shall outlast a power failure; without, it is only whole, and much faster.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
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
    if sync and os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep(folder: Path, *, seconds: float = 0.0) -> None:
    """Remove the temporary files of at least this age that killed writers left in a folder."""
    for path in folder.glob(".*.tmp"):
        if _TEMPORARY.fullmatch(path.name):
            with suppress(FileNotFoundError):  # its writer may be alive after all
                if time.time() - path.stat().st_mtime >= seconds:
                    path.unlink()
