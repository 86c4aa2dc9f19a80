"""Whether disk and memory have room for what is asked for, before the work begins."""

import os
import shutil
from pathlib import Path

CONTROL_GROUP = Path("/sys/fs/cgroup")
_BLOCK = 4096


def require_disk(path: Path, size: int, what: str) -> None:
    """Raise ValueError if the disk of a path has less than `size` bytes left.

    what: subject of the message, in the plural. Folders of the path may be missing.
    """
    folder = nearest_folder(path)
    if size > (free := shutil.disk_usage(folder).free):
        raise ValueError(
            f"{what} need {size / 1e9:,.1f} GB, and {folder} has {free / 1e9:,.1f} GB left"
        )


def require_files(path: Path, count: int, what: str) -> None:
    """Raise ValueError if the disk of a path has no room for so many files, a block for each."""
    folder = nearest_folder(path)
    block = os.statvfs(folder).f_frsize if hasattr(os, "statvfs") else _BLOCK
    require_disk(path, count * block, what)


def require_memory(size: int, what: str) -> None:
    """Raise ValueError if less than `size` bytes of memory are free.  what: as above."""
    free = free_memory()
    if free is not None and size > free:
        raise ValueError(
            f"{what} need about {size / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free"
        )


def nearest_folder(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    path = path.absolute()
    return next((each for each in path.parents if each.is_dir()), path.parent)


def free_memory() -> int | None:
    """Bytes of memory that this process can still get; None where the system does not say."""
    found = [free for free in (_of_system(), _of_control_group()) if free is not None]
    return min(found, default=None)


def _of_system() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        return None


def _of_control_group() -> int | None:
    """What a container still has; files that the system keeps in memory give way."""
    try:
        limit = int((CONTROL_GROUP / "memory.max").read_text("ascii"))
        lines = (CONTROL_GROUP / "memory.stat").read_text("ascii").splitlines()
    except (OSError, ValueError):  # no control group, or "max": no limit
        return None
    used = next((int(line.split()[1]) for line in lines if line.startswith("anon ")), 0)
    return max(0, limit - used)
