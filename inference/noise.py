"""The noise stream `philox4x32-10/u16-quantile/1`: image i of seed s has one z, everywhere.

Counter-based, so any image can be drawn alone. Philox4x32-10 (Salmon, Moraes, Dror and Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011) gives random words; each half word is
looked up in a table of normal quantiles. No libm and no rejection, hence the same bits in every
language and on every machine.
"""

from functools import cache, lru_cache
from operator import index
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NOISE = "philox4x32-10/u16-quantile/1"
"""The name of this definition, as artifacts carry it."""

LIMIT = 2**63
"""Seeds and image indices lie in 0 … LIMIT − 1."""

QUANTILES_SHA256 = "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
"""Of the table of quantiles as 65,536 little-endian float32."""

# Of Philox; sampler.onnx is made of them too.
LATENT_STREAM, LABEL_STREAM = 0, 1
ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_INCREMENTS = 0x9E3779B9, 0xBB67AE85


def _constant(value: int) -> NDArray[np.uint64]:
    """The low 32 bits of a number, as an array of no axes."""
    return np.array(value & 0xFFFFFFFF, np.uint64)


_MASK, _SHIFT = _constant(0xFFFFFFFF), _constant(32)
_M0, _M1 = map(_constant, MULTIPLIERS)
_CHUNK = 1024  # images drawn at once: the working arrays stay in the processor's cache


def latents(
    count: int,
    latent_dim: int,
    *,
    seed: int = 0,
    start: int = 0,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """z of images `start` to `start + count` of `seed`: float32 (count, latent_dim) ~ N(0, I).

    Values come from 65,536 quantiles: at most 4.325 from zero, variance 0.99998.
    out: an array of that shape and type to write into and return.

    Raises:
        ValueError: unless 0 <= seed < 2^63, 0 <= start, 0 <= count, start + count <= 2^63.
    """
    count, seed, start = check_range(count, seed=seed, start=start)
    z = np.empty((count, latent_dim), np.float32) if out is None else out
    table = normal_quantiles()
    blocks = -(-latent_dim // 8)  # a block is four words, a word two values
    for first in range(0, count, _CHUNK):
        rows = z[first : first + _CHUNK]
        words = _stream_words(len(rows), blocks, seed, start + first, LATENT_STREAM)
        # No index is out of range: `clip` saves the look at each of them.
        np.take(table, words.view("<u2")[:, :latent_dim], out=rows, mode="clip")
    return z


def labels(count: int, classes: int, *, seed: int = 0, start: int = 0) -> NDArray[np.int64]:
    """The drawn labels of images `start` to `start + count` of `seed`: int64 (count,).

    Each of 0 to `classes` - 1 is as likely. They have a stream of their own: z are the same with
    labels and without.

    Raises:
        ValueError: as `latents`, and unless 0 < classes < 2^31.
    """
    count, seed, start = check_range(count, seed=seed, start=start)
    if not 0 < classes < 2**31:
        raise ValueError(f"classes must be in 1 … 2**31 - 1, got {classes}")
    drawn = np.empty(count, np.int64)
    for first in range(0, count, _CHUNK):
        rows = drawn[first : first + _CHUNK]
        rows[:] = _stream_words(len(rows), 1, seed, start + first, LABEL_STREAM)[:, 0]
        np.right_shift(rows * classes, 32, out=rows)
    return drawn


def check_range(count: int, *, seed: int, start: int) -> tuple[int, int, int]:
    """Count, seed and start as Python's numbers, whatever other whole numbers they are.

    Raises:
        TypeError: for what is no whole number.
        ValueError: unless `count` images of `seed` from `start` on lie in the stream.
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
def normal_quantiles() -> NDArray[np.float32]:
    """The table T[k] = Φ⁻¹((k + ½) / 65536), float32 (65536,), read-only."""
    upper = np.fromfile(Path(__file__).with_name("normal_quantiles.f32"), "<f4")
    table = np.concatenate([-upper[::-1], upper]).astype(np.float32)
    table.flags.writeable = False
    return table


def _stream_words(
    count: int, blocks: int, seed: int, start: int, stream: int
) -> NDArray[np.uint32]:
    """Random words of `count` images, uint32 little-endian (count, 4 * blocks)."""
    image = np.arange(start, start + count, dtype=np.uint64)  # (count,)
    counter = np.empty((4, count, blocks), np.uint64)
    counter[0] = np.arange(blocks, dtype=np.uint64)
    counter[1] = stream
    counter[2] = (image & _MASK)[:, None]
    counter[3] = (image >> _SHIFT)[:, None]
    words = np.empty((count, blocks, 4), "<u4")
    _philox_in_place(counter, seed & 0xFFFFFFFF, seed >> 32)
    for i in range(4):
        words[..., i] = counter[i]
    return words.reshape(count, 4 * blocks)


def philox4x32(counter: NDArray[np.uint64], key_low: int, key_high: int) -> NDArray[np.uint64]:
    """Philox4x32-10 of many counters under one key.

    counter: uint64 (4, ...), each value under 2^32, unchanged.  Returns the words likewise.
    """
    words = counter.copy()
    _philox_in_place(words, key_low, key_high)
    return words


def _philox_in_place(counter: NDArray[np.uint64], key_low: int, key_high: int) -> None:
    """The same, in the counters' place.

    For one image, numpy's cost of a call is all there is: arrays of no axes are its cheapest
    constants, and `out` its cheapest results.
    """
    c0, c1, c2, c3 = counter
    product0, product1 = np.empty_like(c0), np.empty_like(c0)
    for k0, k1 in _round_keys(key_low, key_high):
        np.multiply(c0, _M0, out=product0)
        np.multiply(c2, _M1, out=product1)
        for high, low, word, key in ((product1, c1, c0, k0), (product0, c3, c2, k1)):
            np.right_shift(high, _SHIFT, out=word)
            np.bitwise_xor(word, low, out=word)
            np.bitwise_xor(word, key, out=word)
            np.bitwise_and(high, _MASK, out=low)


@lru_cache(maxsize=64)
def _round_keys(
    key_low: int, key_high: int
) -> tuple[tuple[NDArray[np.uint64], NDArray[np.uint64]], ...]:
    """Both keys of each round."""
    return tuple(
        (_constant(key_low + i * KEY_INCREMENTS[0]), _constant(key_high + i * KEY_INCREMENTS[1]))
        for i in range(ROUNDS)
    )
