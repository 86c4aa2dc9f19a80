"""`sampler.onnx`: three integers in, images out."""

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from export.generator_files import export_graph
from export.sampler_file import sampler_graph
from inference import ArtifactError, Sampler
from inference.noise import LIMIT, latents
from inference.runtime.session import open_session
from training.gan.networks import Generator

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def session(tiny_artifact: Path) -> Any:
    return open_session((tiny_artifact / "sampler.onnx").read_bytes(), "cpu")[0]


def draw(
    session: Any, count: int, *, seed: int, start: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    numbers = {"seed": seed, "start": start, "count": count}
    feeds = {name: np.array(number, np.int64) for name, number in numbers.items()}
    pixels, z = session.run(["pixels", "z"], feeds)
    return pixels, z


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, LIMIT - 1), start=st.integers(0, LIMIT - 300), count=st.integers(0, 300))
def test_it_draws_the_images_of_the_sampler(
    session: Any, tiny_artifact: Path, seed: int, start: int, count: int
) -> None:
    pixels, z = draw(session, count, seed=seed, start=start)
    assert z.tobytes() == latents(count, 10, seed=seed, start=start).tobytes()
    assert z.shape == (count, 10)
    sampler = Sampler(tiny_artifact, provider="cpu")
    np.testing.assert_array_equal(pixels[..., 0], sampler.sample(count, seed=seed, start=start))


@pytest.mark.parametrize(
    ("seed", "image", "bits"),
    [
        (0, 0, [0x3FAB3ABC, 0xBE82FC6F, 0x3F3E92A7, 0x3F96BAA1]),
        (2**40 + 9, 2**33 + 1, [0x3E366FC0, 0x3F6198CE, 0x4005DB0B, 0xBFCCE715]),
        (2**63 - 1, 2**63 - 2, [0xBF393A3F, 0xBE8C4152, 0xBF5736B8, 0x3F0B5AE1]),
    ],
)
def test_z_has_its_published_bits(session: Any, seed: int, image: int, bits: list[int]) -> None:
    _, z = draw(session, 1, seed=seed, start=image)
    assert z.view(np.uint32)[0, :4].tolist() == bits


def test_shards_are_the_whole(session: Any) -> None:
    whole = draw(session, 100, seed=5, start=2**32 - 50)  # the low word of the index overflows
    shards = [draw(session, 25, seed=5, start=2**32 - 50 + first) for first in range(0, 100, 25)]
    for part in (0, 1):
        together = np.concatenate([shard[part] for shard in shards])
        assert together.tobytes() == whole[part].tobytes()
    assert len(np.unique(whole[0], axis=0)) > 90


@pytest.mark.parametrize("latent_dim", [1, 7, 8, 100])  # less than a block; whole blocks; a rest
def test_any_length_of_z(latent_dim: int) -> None:
    generator = Generator(latent_dim, (4,), (1, 2, 2)).eval()
    model = sampler_graph(export_graph(generator), latent_dim)
    session, _ = open_session(model.SerializeToString(), "cpu")
    _, z = draw(session, 3, seed=LIMIT - 1, start=9)
    np.testing.assert_array_equal(z, latents(3, latent_dim, seed=LIMIT - 1, start=9))


def test_the_noise_is_made_on_int64_alone(tiny_artifact: Path) -> None:
    """Old onnxruntimes have no kernels for unsigned integers, and onnxruntime-web has few."""
    model = onnx.load(tiny_artifact / "sampler.onnx")
    noise = [tensor for tensor in model.graph.initializer if tensor.name.startswith("noise.")]
    tables = [tensor for tensor in noise if tensor.data_type != onnx.TensorProto.INT64]
    assert [(table.data_type, list(table.dims)) for table in tables] == [(1, [65536])]
    before_z = [node.op_type for node in model.graph.node if node.output[0].startswith("noise.")]
    assert set(before_z) == {
        "Range", "Add", "Sub", "Mul", "Div", "BitwiseAnd", "BitwiseXor",
        "Unsqueeze", "Concat", "Reshape", "Slice",
    }  # fmt: skip


@pytest.mark.full  # times are compared where nothing else runs
def test_it_is_at_most_15_percent_slower_than_the_generator() -> None:
    """Measured: 8 %. Both alternate in one process, so that the machine disturbs both alike."""
    generator = export_graph(Generator(100, (128, 256, 512, 1024), (1, 28, 28)))
    with_noise = sampler_graph(generator, 100)
    ours, plain = (
        open_session(model.SerializeToString(), "cpu")[0] for model in (with_noise, generator)
    )
    z = latents(1024, 100)
    ratios = []
    for _ in range(25):
        begin = perf_counter()
        plain.run(["pixels"], {"z": z})
        middle = perf_counter()
        draw(ours, 1024, seed=0, start=0)
        ratios.append((perf_counter() - middle) / (middle - begin))
    assert np.median(ratios) <= 1.15


def test_python_draws_from_the_generator(tiny_artifact: Path) -> None:
    with pytest.raises(ArtifactError, match=r"sampler file.*generator\.onnx"):
        Sampler(tiny_artifact / "sampler.onnx")
