"""The CUDA kernels give the same bits as numpy and the graph. kernels.ptx belongs to kernels.cu."""

import contextlib
import ctypes
import hashlib
import shutil
import subprocess
from importlib.metadata import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.model_files.network import without_pixels
from inference.noise import LIMIT, labels, latents, normal_quantiles
from inference.onnx_format.onnx_file import read_model
from inference.runtime.session import open_session
from scripts.make_kernels import PTX, PTX_VERSION, SOURCE, compile_ptx, compiler, shipped

pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

CPP = shutil.which("c++")
GPUS = ["75", "80", "86", "87", "89", "90", "100", "103", "110", "120", "121"]
"""Compute capabilities of CUDA 13, without the point."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compile kernels.cu as plain C++."""
    if CPP is None:
        pytest.skip("no C++ compiler, c++")
    path = tmp_path_factory.mktemp("noise") / "noise.so"
    command = [CPP, "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-x", "c++"]
    subprocess.run([*command, str(SOURCE), "-o", str(path)], check=True)
    loaded = ctypes.CDLL(str(path))
    u64, u32, pointer = ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p
    loaded.noise_latents.argtypes = [pointer, pointer, u64, u64, u32, u32]
    loaded.images_to_pixels.argtypes = [pointer, pointer, u32, u32, u32]
    loaded.noise_labels.argtypes = [pointer, u64, u64, u32, u32, ctypes.c_int64]
    return loaded


def drawn(library: Any, count: int, latent_dim: int, seed: int, start: int) -> Any:
    upper = np.ascontiguousarray(normal_quantiles()[2**15 :])
    z = np.full((count + 1, latent_dim), np.nan, np.float32)
    library.noise_latents(z.ctypes.data, upper.ctypes.data, seed, start, count, latent_dim)
    assert np.isnan(z[count]).all()  # nothing is written after the last image
    return z[:count].view(np.uint32)


@settings(deadline=None)
@given(
    seed=st.integers(0, LIMIT - 1),
    start=st.integers(0, LIMIT - 1),
    count=st.integers(0, 200),
    latent_dim=st.integers(1, 130),
    classes=st.integers(1, 2**31 - 1),
)
def test_the_source_draws_the_bits_of_numpy(
    library: Any, seed: int, start: int, count: int, latent_dim: int, classes: int
) -> None:
    count = min(count, LIMIT - start)
    expected = latents(count, latent_dim, seed=seed, start=start).view(np.uint32)
    np.testing.assert_array_equal(drawn(library, count, latent_dim, seed, start), expected)
    numbers = np.full(count + 1, -7, np.int64)
    library.noise_labels(numbers.ctypes.data, seed, start, count, classes, -1)
    expected_labels = labels(count, classes, seed=seed, start=start)
    np.testing.assert_array_equal(numbers[:count], expected_labels)
    assert numbers[count] == -7
    library.noise_labels(numbers.ctypes.data, seed, start, count, classes, classes - 1)
    assert (numbers[:count] == classes - 1).all()


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**63 - 1])
@pytest.mark.parametrize("start", [0, 2**32 - 2, 2**63 - 4])
def test_at_the_limits_too(library: Any, seed: int, start: int) -> None:
    expected = latents(4, 100, seed=seed, start=start).view(np.uint32)
    np.testing.assert_array_equal(drawn(library, 4, 100, seed, start), expected)


def test_every_quantile_is_looked_up_right(library: Any) -> None:
    """A million values contain nearly all of the 65,536."""
    bits = drawn(library, 10_000, 100, 3, 0)
    np.testing.assert_array_equal(bits, latents(10_000, 100, seed=3).view(np.uint32))
    assert len(np.unique(bits)) > 65_500


@pytest.mark.parametrize(
    "artifact", ["tiny_artifact", "conditional_artifact", "colour_artifact", "conv_artifact"]
)
def test_pixels_are_those_of_the_graph(
    library: Any, artifact: str, request: pytest.FixtureRequest
) -> None:
    model = (request.getfixturevalue(artifact) / "generator.onnx").read_bytes()
    file = read_model(model)
    session, _ = open_session(model, "cpu")
    alone, _ = open_session(without_pixels(model, file.nodes), "cpu")
    (output,) = alone.get_outputs()
    (size,) = [i.shape[1] for i in session.get_inputs() if i.name == "z"]
    feeds = {"z": latents(300, size, seed=5) * 3}  # some values are large enough to be clipped
    if "labels" in {i.name for i in session.get_inputs()}:
        feeds["labels"] = np.arange(300) % 10  # type: ignore[assignment]
    images, pixels = session.run(["images", "pixels"], feeds)
    (values,) = alone.run([output.name], feeds)
    assert values.shape[1:] == tuple(output.shape[1:])
    np.testing.assert_array_equal(values.reshape(images.shape), images)
    made = np.full(pixels.size + 1, 77, np.uint8)
    channels, height, width = images.shape[1:]
    library.images_to_pixels(
        made.ctypes.data, images.ctypes.data, pixels.size, channels, height * width
    )
    np.testing.assert_array_equal(made[:-1].reshape(pixels.shape), pixels)
    assert made[-1] == 77


def test_every_level_is_rounded_as_numpy_rounds(library: Any) -> None:
    halves = np.arange(-4, 516, dtype=np.float32) / np.float32(255) - np.float32(1)
    near = np.concatenate([halves, np.nextafter(halves, 2), np.nextafter(halves, -2)])
    images = np.concatenate([near, [-np.inf, np.inf, -1e30, 1e30]]).astype(np.float32)
    made = np.empty(len(images), np.uint8)
    library.images_to_pixels(made.ctypes.data, images.ctypes.data, len(images), 1, len(images))
    levels = ((images + np.float32(1)) * np.float32(127.5)).round().clip(0, 255)
    np.testing.assert_array_equal(made, levels.astype(np.uint8))


def test_the_ptx_is_made_of_this_source() -> None:
    first = PTX.read_text("ascii").splitlines()[0]
    assert first == f"// sha256 of kernels.cu: {hashlib.sha256(SOURCE.read_bytes()).hexdigest()}", (
        "kernels.cu has changed: python scripts/make_kernels.py"
    )


def test_compiled_again_it_is_the_ptx_that_ships() -> None:
    try:
        nvrtc = compiler()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    source = SOURCE.read_bytes()
    made = shipped(compile_ptx(nvrtc, source.decode()), source)
    ships = PTX.read_text("ascii")
    version = "// Cuda compilation tools"
    if _line(made, version) == _line(ships, version):
        assert made == ships
    else:  # another version of the compiler may write other text
        assert _line(made, ".visible .entry") == _line(ships, ".visible .entry")


def test_a_compiler_that_refuses_is_quoted() -> None:
    try:
        nvrtc = compiler()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    with pytest.raises(ValueError, match=r"kernels\.cu.*error"):
        compile_ptx(nvrtc, "extern int f(;")


def assembler(gpu: str) -> str:
    """NVIDIA's assembler, on the path or in a package such as Triton, if it knows a GPU."""
    found = [shutil.which("ptxas")]
    for package in ("nvidia-cuda-nvcc", "triton"):
        with contextlib.suppress(ModuleNotFoundError):
            paths = [file for file in files(package) or [] if file.name.startswith("ptxas")]
            found += [str(path.locate()) for path in paths]
    for path in filter(None, found):
        done = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
        if f"'sm_{gpu}'" in done.stdout:
            return path
    pytest.skip(f"no assembler of NVIDIA's, ptxas, that knows sm_{gpu}")


@pytest.mark.parametrize("gpu", GPUS)
def test_each_gpu_takes_the_ptx(gpu: str, tmp_path: Path) -> None:
    assert f".version {PTX_VERSION}\n" in PTX.read_text("ascii")
    command = [assembler(gpu), f"-arch=sm_{gpu}", str(PTX), "-o", str(tmp_path / "kernels.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kernels.cubin").stat().st_size > 1000


def test_the_assembler_refuses_what_is_newer_than_the_version(tmp_path: Path) -> None:
    """The text really is PTX 6.3: with an older version, the assembler refuses the target."""
    older = tmp_path / "older.ptx"
    older.write_text(PTX.read_text("ascii").replace(f".version {PTX_VERSION}", ".version 6.2"))
    command = [assembler("75"), "-arch=sm_75", str(older), "-o", str(tmp_path / "older.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "does not support" in done.stderr + done.stdout


def _line(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]
