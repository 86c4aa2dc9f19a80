"""How much memory there is, and whether a data set fits into it."""

import torch

from inference.writing.room import Memory, memory_here
from training.data.images import DataError


def memory_of(device: torch.device) -> Memory:
    """The memory of a GPU, or of the machine within the limits of its container."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Memory(total, free)
    return memory_here()


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
