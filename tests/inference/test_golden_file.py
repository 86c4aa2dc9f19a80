"""The golden file of all languages, here for Python and `sampler.onnx`.

The tests of the examples compare the service, Node and the browser with the same file.
"""

from pathlib import Path

import numpy as np
import pytest

from inference import Sampler
from inference.runtime.session import open_session
from tests.support.golden_file import Golden, golden_images, require_golden_z, require_same_pixels


def test_it_reaches_beyond_what_32_bits_and_a_float64_hold() -> None:
    places = [(golden.seed, golden.start) for golden in golden_images()]
    assert any(seed > 2**40 and start > 2**33 for seed, start in places)
    assert any(int(float(seed)) != seed and int(float(start)) != start for seed, start in places)


@pytest.mark.parametrize("golden", golden_images(), ids=lambda golden: f"seed-{golden.seed}")
def test_python_and_sampler_onnx_draw_the_golden_images(
    golden_artifact: Path, golden: Golden
) -> None:
    sampler = Sampler(golden_artifact, provider="cpu")
    require_golden_z(sampler.latents(golden.count, seed=golden.seed, start=golden.start), golden)
    drawn = sampler.sample(golden.count, seed=golden.seed, start=golden.start)
    require_same_pixels(drawn, golden.pixels)

    session, _ = open_session((golden_artifact / "sampler.onnx").read_bytes(), "cpu")
    numbers = {"seed": golden.seed, "start": golden.start, "count": golden.count}
    feeds = {name: np.array(number, np.int64) for name, number in numbers.items()}
    pixels, z = session.run(["pixels", "z"], feeds)
    require_golden_z(z, golden)
    np.testing.assert_array_equal(pixels[..., 0], drawn)  # on one processor, bit for bit
