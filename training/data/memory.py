"""How much memory there is, and whether a data set fits into it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from training.data.images import DataError

_GROUPS = Path("/sys/fs/cgroup")


class Memory(NamedTuple):
    """Memory in bytes."""

    total: int
    """What one process could have if there were no other; swap counts."""
    free: int
    """What is free now, without swap."""


def memory_of(device: torch.device) -> Memory:
    """The memory of a GPU, or of the machine within the limits of its container."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Memory(total, free)
    found = [_machine(), *_groups()]
    return Memory(min(each.total for each in found), min(each.free for each in found))


def require_room(count: int, image_shape: tuple[int, ...]) -> None:
    """Raise DataError if so many images, uint8 of this shape, cannot be in memory."""
    channels, height, width = image_shape
    size = count * channels * height * width
    if size > (total := memory_of(torch.device("cpu")).total):
        raise DataError(
            f"{count:,} images of {width}×{height} need {in_gb(size)} of memory, and there are "
            f"{in_gb(total)}: lower --image-size, or take fewer images"
        )


def in_gb(size: int) -> str:
    """Bytes in gigabytes, as text."""
    return f"{size / 1e9:,.1f} GB"


def _machine() -> Memory:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:  # not Linux
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
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
