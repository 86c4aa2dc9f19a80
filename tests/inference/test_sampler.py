"""`Sampler`: an image is the same in every way of asking for it, and errors are clear."""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inference import ArtifactError, ProviderError, Sampler
from inference.artifact import Metadata
from training.gan.networks import to_pixels
from training.run_folder.checkpoint import load_generator
from training.run_folder.sealed_file import load

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def sampler(tiny_artifact: Path) -> Sampler:
    return Sampler(tiny_artifact, provider="cpu")


def test_parts_are_the_whole(sampler: Sampler) -> None:
    whole = sampler.sample(9, seed=3)
    assert whole.shape == (9, 8, 8)
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole[:4], sampler.sample(4, seed=3))
    np.testing.assert_array_equal(whole[4:], sampler.sample(5, seed=3, start=4))
    assert len(np.unique(whole, axis=0)) == 9  # nine different images


def test_seeds_differ(sampler: Sampler) -> None:
    assert (sampler.sample(4, seed=1) != sampler.sample(4, seed=2)).any(axis=(1, 2)).all()


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(0, 1500),
    start=st.integers(0, 2**63 - 1500),
    seed=st.integers(0, 2**63 - 1),
    batch_size=st.integers(1, 700),
)
def test_stream_gives_what_sample_gives(
    sampler: Sampler, count: int, start: int, seed: int, batch_size: int
) -> None:
    batches = list(sampler.stream(count, seed=seed, start=start, batch_size=batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    streamed = np.concatenate([*batches, np.empty((0, 8, 8), np.uint8)])
    np.testing.assert_array_equal(streamed, sampler.sample(count, seed=seed, start=start))


def test_decode_gives_the_pixels_of_pytorch(sampler: Sampler, tiny_run: Path) -> None:
    checkpoint = tiny_run / "checkpoints" / f"step-{sampler.metadata.step:07d}.pt"
    generator = load_generator(load(checkpoint))
    z = np.random.default_rng(0).standard_normal((600, 10), np.float32)
    with torch.inference_mode():
        expected = to_pixels(generator(torch.from_numpy(z))).numpy()[..., 0]
    difference = np.abs(sampler.decode(z).astype(int) - expected)
    # float32 kernels may round half a level apart: one level, and rarely.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_sample_decodes_latents(sampler: Sampler) -> None:
    z = sampler.latents(5, seed=8, start=2)
    assert z.shape == (5, 10)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(sampler.decode(z), sampler.sample(5, seed=8, start=2))
    # Other float types, strides and byte orders with the same numbers give the same images.
    np.testing.assert_array_equal(sampler.decode(z.astype(np.float64)), sampler.decode(z))
    np.testing.assert_array_equal(sampler.decode(np.asfortranarray(z)), sampler.decode(z))
    np.testing.assert_array_equal(sampler.decode(z.astype(">f4")), sampler.decode(z))


def test_folder_file_and_bytes_are_the_same_artifact(sampler: Sampler, tiny_artifact: Path) -> None:
    file = tiny_artifact / "generator.onnx"
    expected = sampler.sample(3)
    for artifact in (tiny_artifact, str(tiny_artifact), file, file.read_bytes()):
        np.testing.assert_array_equal(Sampler(artifact, provider="cpu").sample(3), expected)


def test_metadata_is_the_contract(sampler: Sampler) -> None:
    assert isinstance(sampler.metadata, Metadata)
    assert sampler.metadata.dataset == "digits"
    assert sampler.metadata.image_shape == (1, 8, 8)
    assert sampler.metadata.parity["max_difference"] <= sampler.metadata.parity["tolerance"]
    assert sampler.provider == "cpu"


@pytest.mark.parametrize(
    ("z", "complaint"),
    [
        (np.zeros((3, 11), np.float32), r"\(3, 11\)"),
        (np.zeros(10, np.float32), r"\(10,\)"),
        (np.zeros((3, 10), np.int64), "int64"),
        (np.full((3, 10), np.nan, np.float32), "NaN"),
        (np.full((3, 10), np.inf, np.float32), "infinity"),
        (np.full((3, 10), 1e300), "infinity"),
    ],
)
def test_decode_says_what_is_wrong_with_z(
    sampler: Sampler, z: NDArray[Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        sampler.decode(z)


def test_bad_ranges_are_refused_at_the_call(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match="count=-1"):
        sampler.sample(-1)
    with pytest.raises(ValueError, match="seed"):
        sampler.stream(1, seed=-1)  # before the first batch is asked for
    with pytest.raises(ValueError, match="batch_size"):
        sampler.stream(1, batch_size=0)


@pytest.mark.parametrize("provider", ["gpu", "CUDA", "cuda:", "cuda:x", ""])
def test_unknown_providers_are_refused(tiny_artifact: Path, provider: str) -> None:
    with pytest.raises(ValueError, match="provider"):
        Sampler(tiny_artifact, provider=provider)
    with pytest.raises(ValueError, match="threads"):
        Sampler(tiny_artifact, threads=-1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_cuda_is_an_error_and_auto_says_why_not(
    tiny_artifact: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ProviderError, match=r"CUDA|NVIDIA"):
        Sampler(tiny_artifact, provider="cuda")
    with caplog.at_level(logging.INFO):
        assert Sampler(tiny_artifact).provider == "cpu"
    assert [record.name for record in caplog.records] == ["inference"]
    assert "CPU" in caplog.text


def test_files_that_are_no_artifacts_are_refused_by_name(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        Sampler(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"generator\.onnx.*No such file"):
        Sampler(tmp_path)
    good = (tiny_artifact / "generator.onnx").read_bytes()
    for bad in (b"", b"<html>", good[:-1], good[: len(good) // 2], good.replace(b"bce", b"abc")):
        file = tmp_path / "generator.onnx"
        file.write_bytes(bad)
        with pytest.raises(
            ArtifactError, match=r"generator\.onnx: (damaged|not written|empty|cut)"
        ):
            Sampler(file)


def test_an_artifact_may_move(tiny_artifact: Path, tmp_path: Path, sampler: Sampler) -> None:
    shutil.copy(tiny_artifact / "generator.onnx", tmp_path / "other name")
    moved = Sampler(tmp_path / "other name", provider="cpu")
    np.testing.assert_array_equal(moved.sample(2), sampler.sample(2))
