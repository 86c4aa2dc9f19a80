"""Write `inference/normal_quantiles.f32`, the table of the noise stream.

python scripts/make_normal_quantiles.py

T[k] = Φ⁻¹((k + ½) / 65536) as the nearest float32, for k = 32768 … 65535 (the upper half;
T[65535 − k] = −T[k]), little-endian. mpmath computes 50 digits, so that the rounding is right.
`inference.noise.QUANTILES_SHA256` is the sha256 of the whole table, and a test compares it.
"""

from pathlib import Path

import mpmath
import numpy as np

TABLE = Path(__file__).parents[1] / "inference" / "normal_quantiles.f32"


def quantile(p: mpmath.mpf) -> mpmath.mpf:
    """Φ⁻¹(p), the inverse of the standard normal distribution function."""
    return mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1)


def main() -> None:
    mpmath.mp.dps = 50
    upper = [quantile((k + mpmath.mpf(1) / 2) / 65536) for k in range(32768, 65536)]
    # Through float64, a value is rounded twice, to 53 bits and to 24. That could differ from one
    # rounding only for a value within 2^-53 of a tie. The sha256 shows that there is none.
    TABLE.write_bytes(np.array([float(x) for x in upper]).astype("<f4").tobytes())


if __name__ == "__main__":
    main()
