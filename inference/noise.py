"""The noise stream `philox4x32-10/u16-quantile/1`: image i of seed s has one z, everywhere.

Counter-based, so any image can be drawn alone. Philox4x32-10 (Salmon, Moraes, Dror and Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011) gives random words; each half word is
looked up in a table of normal quantiles. No libm and no rejection, hence the same bits in every
language and on every machine.
"""

from functools import cache
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
LATENT_STREAM = 0
ROUNDS = 10
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
KEY_INCREMENTS = 0x9E3779B9, 0xBB67AE85
_CHUNK = 1024  # images drawn at once: the working arrays stay in the processor's cache


def latents(count: int, latent_dim: int, *, seed: int = 0, start: int = 0) -> NDArray[np.float32]:
    """z of images `start` to `start + count` of `seed`: float32 (count, latent_dim) ~ N(0, I).

    Values come from 65,536 quantiles: at most 4.325 from zero, variance 0.99998.

    Raises:
        ValueError: unless 0 <= seed < 2^63, 0 <= start, 0 <= count, start + count <= 2^63.
    """
    check_range(count, seed=seed, start=start)
    z = np.empty((count, latent_dim), np.float32)
    table = normal_quantiles()
    blocks = -(-latent_dim // 8)  # a block is four words, a word two values
    for first in range(0, count, _CHUNK):
        rows = z[first : first + _CHUNK]
        words = _stream_words(len(rows), blocks, seed, start + first, LATENT_STREAM)
        np.take(table, words.view("<u2")[:, :latent_dim], out=rows)
    return z


def check_range(count: int, *, seed: int, start: int) -> None:
    """Raise ValueError unless `count` images of `seed` from `start` on lie in the stream."""
    if not 0 <= seed < LIMIT:
        raise ValueError(f"seed must be in 0 … 2**63 - 1, got {seed}")
    if count < 0 or start < 0 or start + count > LIMIT:
        raise ValueError(
            f"images must lie in 0 … 2**63 - 1, got start={start} and count={count}: "
            f"neither may be negative, and start + count may not exceed 2**63"
        )


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
    image = np.arange(count, dtype=np.uint64) + np.uint64(start)  # (count,)
    counter = np.empty((4, count, blocks), np.uint64)
    counter[0] = np.arange(blocks, dtype=np.uint64)
    counter[1] = stream
    counter[2] = (image & _MASK)[:, None]
    counter[3] = (image >> _SHIFT)[:, None]
    words = philox4x32(counter, seed & 0xFFFFFFFF, seed >> 32)
    return words.transpose(1, 2, 0).astype("<u4", order="C").reshape(count, 4 * blocks)


def philox4x32(counter: NDArray[np.uint64], key_low: int, key_high: int) -> NDArray[np.uint64]:
    """Philox4x32-10 of many counters under one key.

    counter: uint64 (4, ...), each value under 2^32, unchanged.  Returns the words likewise.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = np.uint64(key_low), np.uint64(key_high)
    for _ in range(ROUNDS):
        product0 = c0 * MULTIPLIERS[0]
        product1 = c2 * MULTIPLIERS[1]
        c0, c2 = (product1 >> _SHIFT) ^ c1 ^ k0, (product0 >> _SHIFT) ^ c3 ^ k1
        c1, c3 = product1 & _MASK, product0 & _MASK
        k0 = np.uint64(int(k0) + KEY_INCREMENTS[0]) & _MASK
        k1 = np.uint64(int(k1) + KEY_INCREMENTS[1]) & _MASK
    return np.stack([c0, c1, c2, c3])
