"""Image i of a seed is the same for any batch, tile, thread, process and order of calls."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.generator_files import export_graph, onnx_file
from inference import Sampler
from inference.artifact import Metadata
from inference.cpu.tiles import TileNoise
from inference.model_files import own
from inference.noise import NOISE, latents
from tests.support.files import ROOT
from training.gan.networks import Generator

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

MOST = 1500
Draw = Callable[[Sampler, int, int, int], NDArray[np.uint8]]


def by_sample(sampler: Sampler, count: int, seed: int, start: int) -> NDArray[np.uint8]:
    return sampler.sample(count, seed=seed, start=start)


def into_out(sampler: Sampler, count: int, seed: int, start: int) -> NDArray[np.uint8]:
    # Every other row of an array, which is not contiguous and has other content between.
    out = np.full((2 * count, 8, 8), 77, np.uint8)[::2]
    assert sampler.sample(count, seed=seed, start=start, out=out) is out
    return out


def by_stream(sampler: Sampler, count: int, seed: int, start: int) -> NDArray[np.uint8]:
    batches = sampler.stream(count, seed=seed, start=start, batch_size=max(1, count // 3))
    return np.concatenate([*batches, np.empty((0, 8, 8), np.uint8)])


def by_decode(sampler: Sampler, count: int, seed: int, start: int) -> NDArray[np.uint8]:
    return sampler.decode(sampler.latents(count, seed=seed, start=start))


def one_by_one(sampler: Sampler, count: int, seed: int, start: int) -> NDArray[np.uint8]:
    images = [sampler.sample(1, seed=seed, start=start + i) for i in range(min(count, 20))]
    rest = sampler.sample(max(count - 20, 0), seed=seed, start=start + len(images))
    return np.concatenate([*images, rest])


DRAWS: list[Draw] = [by_sample, into_out, by_stream, by_decode, one_by_one]


@pytest.fixture(scope="module")
def reference(tiny_artifact: Path) -> Sampler:
    return Sampler(tiny_artifact, provider="cpu")


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**63 - 1),
    start=st.integers(0, 2**63 - 1 - MOST),
    tile=st.integers(1, 700),
    calls=st.lists(
        st.tuples(
            st.sampled_from(DRAWS), st.integers(0, MOST), st.integers(0, MOST), st.booleans()
        ),
        min_size=1,
        max_size=6,
    ),
)
def test_any_call_gives_the_same_images(
    reference: Sampler,
    tiny_artifact: Path,
    seed: int,
    start: int,
    tile: int,
    calls: list[tuple[Draw, int, int, bool]],
) -> None:
    whole = reference.sample(MOST, seed=seed, start=start)
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as thread:
        patch.setitem(own.TILES, "cpu", tile)
        sampler = Sampler(tiny_artifact, provider="cpu")
        for draw, a, b, elsewhere in calls:
            first, end = sorted((a, b))
            arguments = sampler, end - first, seed, start + first
            images = thread.submit(draw, *arguments).result() if elsewhere else draw(*arguments)
            np.testing.assert_array_equal(images, whole[first:end])


@given(
    calls=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 400), st.integers(0, 300)), max_size=12
    )
)
def test_noise_that_is_drawn_ahead_is_the_noise(calls: list[tuple[int, int, int]]) -> None:
    noise = TileNoise(300, 5)
    for seed, start, count in calls:
        for first, size in ((start, count), (start + count, 1)):
            expected = latents(size, 5, seed=seed, start=first)
            np.testing.assert_array_equal(noise.draw(size, seed, first)[0], expected)


def test_calls_of_the_callers_do_not_mix_with_noise_drawn_ahead(reference: Sampler) -> None:
    expected = reference.sample(20, seed=4)
    for i in range(20):
        reference.decode(np.full((3, 10), i, np.float32))
        np.testing.assert_array_equal(reference.sample(1, seed=4, start=i)[0], expected[i])


@pytest.fixture(scope="module")
def full_size() -> bytes:
    """The generator.onnx of an untrained network in the default size."""
    torch.manual_seed(0)
    generator = Generator(100, (128, 256, 512, 1024), (1, 28, 28)).eval()
    metadata = Metadata(
        role="generator", image_shape=(1, 28, 28), latent_dim=100, noise=NOISE, dataset="-",
        recipe="-", step=0, weights_sha256="-",
    )  # fmt: skip
    return onnx_file(export_graph(generator), metadata)


def test_in_full_size_as_well(full_size: bytes) -> None:
    one, two = (Sampler(full_size, provider="cpu", threads=threads) for threads in (1, 2))
    whole = one.sample(1300, seed=9)
    assert len(np.unique(whole, axis=0)) == 1300
    np.testing.assert_array_equal(two.sample(1300, seed=9), whole)
    first = 0
    for count in (1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 511):
        for sampler in (one, two):
            images = sampler.sample(count, seed=9, start=first)
            np.testing.assert_array_equal(images, whole[first : first + count])
        first += count


def test_another_process_draws_the_same(
    reference: Sampler, tiny_artifact: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, numpy; from inference import Sampler;"
        "numpy.save(sys.argv[2], Sampler(sys.argv[1]).sample(700, seed=2**63 - 1, start=2**40))"
    )
    command = [sys.executable, "-c", code, str(tiny_artifact), str(tmp_path / "drawn.npy")]
    subprocess.run(command, check=True, cwd=ROOT)
    expected = reference.sample(700, seed=2**63 - 1, start=2**40)
    np.testing.assert_array_equal(np.load(tmp_path / "drawn.npy"), expected)
