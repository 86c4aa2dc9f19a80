"""How a call is divided into tiles, and which batch sizes the network has."""

_SIZES = (1, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_LARGEST_COPY = 8192  # largest tile that is copied to the host, so that copies begin early
_SMALLEST_TILE = 1024  # the last tiles are small, because no work hides their copies


def batch_sizes(tile: int) -> list[int]:
    """The batch sizes of the network, in order; a smaller batch uses the next size.

    tile: the most images in one run of the network.
    """
    return [*(size for size in _SIZES if size < tile), tile]


def tiles(part: slice, sizes: list[int], *, ends_small: bool) -> list[slice]:
    """Divide a part of the images into tiles of the network's batch sizes.

    ends_small: whether the last tiles are small, because no work hides their copies.
    """
    found, first = [], part.start
    while first < part.stop:
        rest = part.stop - first
        size = min(rest, sizes[-1])
        if rest > _SMALLEST_TILE:
            most = max(min(rest // 2, _LARGEST_COPY), _SMALLEST_TILE) if ends_small else rest
            size = max(size for size in sizes if size <= most)
        found.append(slice(first, first + size))
        first += size
    return found
