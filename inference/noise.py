"""The noise stream `philox4x32-10/u16-quantile/1`: image i of seed s has the same z everywhere.

The stream is counter-based, so the z of any image can be drawn alone. Philox4x32-10 (Salmon,
Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) gives random words,
and each half of a word selects a value from a table of normal quantiles. There is no math library
and no rejection, so the bits are the same in every language and on every machine.
"""

import os
from collections import deque
from functools import cache, lru_cache, partial
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

NOISE = "philox4x32-10/u16-quantile/1"
"""The name of this definition, which artifacts contain."""

LIMIT = 2**63
"""Seeds and image indices lie in 0 … LIMIT − 1."""

QUANTILES_SHA256 = "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
"""The sha256 of the table of quantiles as 65,536 little-endian float32."""

# The constants of Philox; sampler.onnx uses them too.
LATENT_STREAM, LABEL_STREAM = 0, 1
ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_INCREMENTS = 0x9E3779B9, 0xBB67AE85


def _constant(value: int) -> NDArray[np.uint64]:
    """The low 32 bits of a number, as an array without axes."""
    return np.array(value & 0xFFFFFFFF, np.uint64)


def _pair(low: int, high: int) -> NDArray[np.uint64]:
    """One number for each half of a round, (2, 1, 1)."""
    return np.array([low & 0xFFFFFFFF, high & 0xFFFFFFFF], np.uint64)[:, None, None]


_MULTIPLIERS = _pair(*MULTIPLIERS)
_MASK, _SHIFT = _constant(0xFFFFFFFF), _constant(32)
_CHUNK = 1024  # images whose z is drawn at once: the working arrays fit into the processor's cache
_CHUNK_BLOCKS = 2**14  # most blocks of Philox at once: long z come in fewer images
_MANY = 4  # chunks are larger for several threads, which wait for the interpreter in between


def latents(
    count: int,
    latent_dim: int,
    *,
    seed: int = 0,
    start: int = 0,
    out: NDArray[np.float32] | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """z of images `start` to `start + count` of `seed`: float32 (count, latent_dim) ~ N(0, I).

    Values come from 65,536 quantiles: at most 4.325 from zero, variance 0.99998.
    out: an array of that shape and type to write into and return.
    threads: number of threads that share the work, if there are many images.

    Raises:
        ValueError: unless 0 <= seed < 2^63, 0 <= start, 0 <= count, start + count <= 2^63.
    """
    count, seed, start = check_range(count, seed=seed, start=start)
    z = np.empty((count, latent_dim), np.float32) if out is None else out
    rows = _rows(-(-latent_dim // 8), threads)
    draw = partial(_draw_chunk, z, seed, start, rows)
    chunks = range(0, count, rows)
    if min(threads, len(chunks)) <= 1:
        for first in chunks:
            draw(first)
    else:
        deque(_pool(threads, os.getpid()).map(draw, chunks), maxlen=0)
    return z


def labels(count: int, classes: int, *, seed: int = 0, start: int = 0) -> NDArray[np.int64]:
    """The random labels of images `start` to `start + count` of `seed`: int64 (count,).

    All labels from 0 to `classes` - 1 are equally likely. Labels have another stream than z,
    so z is the same with and without labels.

    Raises:
        ValueError: see `latents`; and unless 0 < classes < 2^31.
    """
    count, seed, start = check_range(count, seed=seed, start=start)
    if not 0 < classes < 2**31:
        raise ValueError(f"classes must be in 1 … 2**31 - 1, got {classes}")
    drawn = np.empty(count, np.int64)
    for first in range(0, count, _CHUNK):
        rows = drawn[first : first + _CHUNK]
        scratch = _Scratch(len(rows), 1, 0)
        rows[:] = _stream_words(scratch, len(rows), seed, start + first, LABEL_STREAM)[:, 0]
        np.right_shift(rows * classes, 32, out=rows)
    return drawn


def check_range(count: int, *, seed: int, start: int) -> tuple[int, int, int]:
    """Convert count, seed and start to Python's int, from any type of whole number.

    Raises:
        TypeError: if one of them is no whole number.
        ValueError: unless images `start` to `start + count` of `seed` are in the stream.
    """
    try:
        count, seed, start = index(count), index(seed), index(start)
    except TypeError:
        raise TypeError(
            f"count, seed and start must be whole numbers, got {count!r}, {seed!r} and {start!r}"
        ) from None
    if not 0 <= seed < LIMIT:
        raise ValueError(f"seed must be in 0 … 2**63 - 1, got {seed}")
    if count < 0 or start < 0 or start + count > LIMIT:
        raise ValueError(
            f"images must lie in 0 … 2**63 - 1, got start={start} and count={count}: "
            f"neither may be negative, and start + count may not exceed 2**63"
        )
    return count, seed, start


@cache
def _pool(threads: int, process: int) -> "ThreadPoolExecutor":
    """A pool of threads; a forked process gets a new pool."""
    from concurrent.futures import ThreadPoolExecutor  # most hosts need no threads

    return ThreadPoolExecutor(threads, thread_name_prefix=__name__)


@cache
def normal_quantiles() -> NDArray[np.float32]:
    """The table T[k] = Φ⁻¹((k + ½) / 65536), float32 (65536,), read-only."""
    upper = np.fromfile(Path(__file__).with_name("normal_quantiles.f32"), "<f4")
    table = np.concatenate([-upper[::-1], upper]).astype(np.float32)
    table.flags.writeable = False
    return table


class _Scratch:
    """The working arrays of a chunk.

    The arrays of large chunks are reused. On some machines, getting memory from the system and
    returning it costs more than the arithmetic, and threads wait for one another meanwhile.
    """

    def __init__(self, rows: int, blocks: int, columns: int) -> None:
        self.size = rows, blocks, columns
        self.even, self.odd = np.empty((2, 2, rows, blocks), np.uint64)
        self.products = np.empty((2, rows, blocks), np.uint64)
        self.words = np.empty((rows, blocks, 4), "<u4")
        self.indices = np.empty((rows, columns), np.intp)


_free: list[_Scratch] = []
_MOST_FREE = 8


def _rows(blocks: int, threads: int) -> int:
    """Number of images in a chunk, for a number of blocks per image."""
    times = 1 if threads == 1 else _MANY
    return max(1, min(times * _CHUNK, times * _CHUNK_BLOCKS // blocks))


def _draw_chunk(z: NDArray[np.float32], seed: int, start: int, most: int, first: int) -> None:
    """Fill at most `most` rows of z, (count, latent_dim), from `first` on."""
    rows = z[first : first + most]
    count, latent_dim = rows.shape
    blocks = -(-latent_dim // 8)  # a block has four words, a word has two values
    scratch = _scratch(count, most, blocks, latent_dim)
    words = _stream_words(scratch, count, seed, start + first, LATENT_STREAM)
    indices = scratch.indices[:count]
    np.copyto(indices, words.view("<u2")[:, :latent_dim])
    # No index is out of range, so `clip` changes nothing; it is faster than checking.
    np.take(normal_quantiles(), indices, out=rows, mode="clip")
    if len(_free) < _MOST_FREE and scratch.size[0] == most:
        _free.append(scratch)


def _scratch(count: int, most: int, blocks: int, columns: int) -> _Scratch:
    """Working arrays for `count` images; for a whole chunk if the images are many."""
    size = most, blocks, columns
    if count < most // 8:
        return _Scratch(count, blocks, columns)
    try:
        scratch = (
            _free.pop()
        )  # atomic, because other threads and signal handlers may run in between
    except IndexError:
        return _Scratch(*size)
    return scratch if scratch.size == size else _Scratch(*size)


def _stream_words(
    scratch: _Scratch, count: int, seed: int, start: int, stream: int
) -> NDArray[np.uint32]:
    """Random words of `count` images, uint32 little-endian (count, 4 * blocks)."""
    image = np.arange(start, start + count, dtype=np.uint64)  # (count,)
    even, odd = scratch.even[:, :count], scratch.odd[:, :count]
    even[0] = np.arange(even.shape[2], dtype=np.uint64)
    odd[0] = stream
    even[1] = (image & _MASK)[:, None]
    odd[1] = (image >> _SHIFT)[:, None]
    products = scratch.products[:, :count]
    _philox_in_place(even, odd, products, seed & 0xFFFFFFFF, seed >> 32)
    words = scratch.words[:count]
    words[..., 0], words[..., 2] = even
    words[..., 1], words[..., 3] = odd
    return words.reshape(count, -1)


def philox4x32(counter: NDArray[np.uint64], key_low: int, key_high: int) -> NDArray[np.uint64]:
    """Philox4x32-10 of many counters under one key.

    counter: uint64 (4, ...), values below 2^32; not changed.  Returns words in the same form.
    """
    words = counter.copy()
    shape = 2, -1, 1
    even, odd = words[::2].reshape(shape), words[1::2].reshape(shape)
    _philox_in_place(even, odd, np.empty_like(even), key_low, key_high)
    words[::2], words[1::2] = even.reshape(words[::2].shape), odd.reshape(words[1::2].shape)
    return words


def _philox_in_place(
    even: NDArray[np.uint64],
    odd: NDArray[np.uint64],
    products: NDArray[np.uint64],
    key_low: int,
    key_high: int,
) -> None:
    """Turn counters into words.  even, odd: words 0 and 2, words 1 and 3, each (2, n, blocks).

    products: memory of the same shape.

    One numpy operation computes both halves of a round: for one image the call overhead dominates,
    and with many threads the interpreter lock between calls.
    """
    crossed = products[::-1]  # the halves swap in each round
    for keys in _round_keys(key_low, key_high):
        np.multiply(even, _MULTIPLIERS, out=products)
        np.right_shift(crossed, _SHIFT, out=even)
        np.bitwise_xor(even, odd, out=even)
        np.bitwise_xor(even, keys, out=even)
        np.bitwise_and(crossed, _MASK, out=odd)


@lru_cache(maxsize=64)
def _round_keys(key_low: int, key_high: int) -> tuple[NDArray[np.uint64], ...]:
    """The two keys of each round, (2, 1, 1)."""
    low, high = KEY_INCREMENTS
    return tuple(_pair(key_low + i * low, key_high + i * high) for i in range(ROUNDS))
