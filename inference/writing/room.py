"""Check the room on disk and in memory before the work begins."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_GROUPS = Path("/sys/fs/cgroup")
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
    if size > (free := free_memory()):
        raise ValueError(
            f"{what} need about {size / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free"
        )


def nearest_folder(path: Path) -> Path:
    """The nearest folder above a path that exists."""
    path = path.absolute()
    return next((each for each in path.parents if each.is_dir()), path.parent)


def free_memory() -> int:
    """Bytes of memory that this process can still get, without swap."""
    return memory_here().free


class Memory(NamedTuple):
    """Memory in bytes."""

    total: int
    """What one process could have if there were no other; swap counts."""
    free: int
    """What is free now, without swap."""


def memory_here() -> Memory:
    """The memory of the machine, within the limits of its container."""
    found = [_machine(), *_groups()]
    return Memory(min(each.total for each in found), min(each.free for each in found))


def _machine() -> Memory:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:  # not Linux
        known = hasattr(os, "sysconf")  # Windows does not say
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else sys.maxsize
        return Memory(total, total)
    sizes = {
        name: int(rest.split()[0]) * 1024 for name, _, rest in (x.partition(":") for x in lines)
    }
    return Memory(sizes["MemTotal"] + sizes["SwapTotal"], sizes["MemAvailable"])


def _groups(root: Path = _GROUPS) -> Iterator[Memory]:
    """The limits of the control groups that this process is in, as containers have them."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            _, kinds, name = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            top = root if not kinds else root / "memory"
            group = top / name.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(top):
                    yield from limits_of(folder)


def limits_of(group: Path) -> Iterator[Memory]:
    """The limit of one control group, of version 1 or 2, if it has one."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        with suppress(OSError, ValueError):  # no such file, or "max"
            most = int((group / limit).read_text("ascii"))
            used = int((group / usage).read_text("ascii"))
            stat = (group / "memory.stat").read_text("ascii").splitlines()
            cached = sum(int(x.split()[1]) for x in stat if x.startswith("inactive_file "))
            yield Memory(most, max(0, most - used + cached))
