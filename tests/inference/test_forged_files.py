"""Each kind of bad artifact, and the message of its `ArtifactError`."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import pytest

from export.generator_files import export_graph, onnx_file
from inference import ArtifactError, Sampler
from inference.artifact import CONTRACT_KEY, Metadata, verify_seal
from inference.model_files import own
from inference.model_files.allowed_graph import read_bounded, require_allowed
from inference.onnx_format.onnx_file import read_model
from inference.runtime.session import SessionSettings
from inference.runtime.shared_session import Session
from tests.support.forging import Change, add_weights, contract_with, resealed
from training.gan.networks import Generator


def no_contract(model: onnx.ModelProto) -> None:
    for entry in [entry for entry in model.metadata_props if entry.key == CONTRACT_KEY]:
        model.metadata_props.remove(entry)


def weights_in(location: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def put_first(model: onnx.ModelProto, *nodes: onnx.NodeProto) -> None:
    """Insert nodes before the first layer, whose input is then their output, `grown`."""
    model.graph.node[0].input[0] = "grown"
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def outer_product(model: onnx.ModelProto) -> None:
    """Combine each row of z with each value, so that sizes multiply."""
    add_weights(model, "tall", 1000, 1)
    put_first(model, onnx.helper.make_node("Add", ["z", "tall"], ["grown"]))


def through_nothing(model: onnx.ModelProto) -> None:
    """After a layer of width 0, the next layer can claim any size without any bytes."""
    add_weights(model, "none", 10, 0)
    add_weights(model, "all", 0, 2**40)
    nodes = [("z", "none", "empty"), ("empty", "all", "grown")]
    put_first(model, *(onnx.helper.make_node("Gemm", [a, b], [c]) for a, b, c in nodes))


def more_rows(model: onnx.ModelProto) -> None:
    """Make rows of one value, and widen each of them."""
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 1]), "column"))
    add_weights(model, "wide", 1, 1000)
    reshape = onnx.helper.make_node("Reshape", ["z", "column"], ["rows"])
    put_first(model, reshape, onnx.helper.make_node("Gemm", ["rows", "wide"], ["grown"]))


def squared(model: onnx.ModelProto) -> None:
    """Multiply z as a column with z as a row, for a square of values."""
    put_first(model, onnx.helper.make_node("Mul", ["z", "z"], ["grown"]))


def a_loop(model: onnx.ModelProto) -> None:
    put_first(model, onnx.helper.make_node("Loop", ["z"], ["grown"], body=model.graph))


def a_function(model: onnx.ModelProto) -> None:
    model.functions.add(name="Gemm", domain="")


def other_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def fixed_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def absurd_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 2**50


def negative_dims(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-16, -10]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (no_contract, "carries no contract"),
        (contract_with(format_version=2), "artifact format 2, this version reads 1: update"),
        (contract_with(image_shape=[1, 80_000, 80_000]), "absurd"),
        (contract_with(latent_dim=2**40), "absurd"),
        (contract_with(precision="fp4"), "precision must be one of fp32, fp16"),
        (contract_with(golden=[1]), "golden"),
        (contract_with(latent_dim=11), "no 'Gemm' like"),
        (contract_with(image_shape=[1, 4, 16]), "not what its contract says"),
        (contract_with(noise="other/1"), "its noise is other/1"),
        (contract_with(classes=["cat"]), "its graph is not what its contract says"),
        (weights_in("weights.data"), "kept outside the file"),
        (weights_in("../../../../etc/passwd"), "kept outside the file"),
        (weights_in("/dev/zero"), "kept outside the file"),
        (absurd_dims, "absurd shape"),
        (negative_dims, "absurd shape"),
        (outer_product, "no 'Add' like"),
        (through_nothing, "absurd shape"),
        (more_rows, "no 'Reshape' like"),
        (squared, "no 'Mul' like"),
        (a_loop, "no 'Loop' like"),
        (a_function, "not a generator's"),
        (other_domain, "no 'Gemm' like"),
        (fixed_batch, "not what its contract says"),
    ],
)
def test_a_good_seal_makes_no_good_artifact(
    tiny_artifact: Path, change: Change, complaint: str
) -> None:
    with pytest.raises(ArtifactError, match=complaint):
        Sampler(resealed(tiny_artifact, change), provider="cpu")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 6033809\n"


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda good: b"", "empty"),
        (lambda good: good[:-1], "cut short|damaged"),
        (lambda good: good[: len(good) // 2], r"cut short: at least [\d,]+ bytes are missing"),
        (lambda good: b"\n<!DOCTYPE html><title>404</title>", "HTML page"),
        (lambda good: LFS, "git-LFS pointer.*git lfs pull"),
        (lambda good: b"PK\x03\x04" + good[:99], "zip archive"),
        (lambda good: b"\x80\x02}q", "pickle"),
        (lambda good: b"no file of ours", "no ONNX file|cut short"),
        (lambda good: good.replace(b"ganpack", b"someone"), "another program's.*allow_foreign"),
        (lambda good: good.replace(b"ganpack.sha256", b"ganpack.sha512"), "no seal"),
        (lambda good: good + good, "2 seals"),
        (lambda good: good.replace(b"bce", b"abc"), "damaged, or changed since .* seal"),
    ],
)
def test_other_files_are_told_apart(
    tiny_artifact: Path, tmp_path: Path, make: Callable[[bytes], bytes], complaint: str
) -> None:
    file = tmp_path / "generator.onnx"
    file.write_bytes(make((tiny_artifact / "generator.onnx").read_bytes()))
    with pytest.raises(ArtifactError, match=rf"generator\.onnx: .*({complaint})"):
        Sampler(tmp_path)


def test_torchscript_and_things_that_are_no_files(tiny_artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"generator\.ts: this is ganpack's"):
        Sampler(tiny_artifact / "generator.ts")
    with pytest.raises(ArtifactError, match="null"):
        Sampler(tmp_path / "a\0b")
    (tmp_path / "generator.onnx").mkdir()
    with pytest.raises(ArtifactError, match="it is a folder"):
        Sampler(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="has no such files")
def test_pipes_devices_and_endless_files_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading would wait forever
    for name in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ArtifactError, match="no plain file"):
            Sampler(name)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)  # it uses no disk space
    with pytest.raises(ArtifactError, match=r"1,099,511,627,776 bytes are absurd"):
        Sampler(tmp_path / "huge")
    with pytest.raises(ArtifactError, match="absurd"):
        read_model(b"\x08\x01" * 2_100_000)


def test_onnxruntime_sees_no_damaged_byte(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = (tiny_artifact / "generator.onnx").read_bytes()
    opened: list[bytes] = []

    def watched(model: bytes, settings: SessionSettings, **more: Any) -> Session:
        opened.append(model)
        return Session(model, settings, **more)

    monkeypatch.setattr(own, "Session", watched)
    for at in range(0, len(good), 97):
        with pytest.raises(ArtifactError):
            Sampler(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :], provider="cpu")
    assert opened == []
    Sampler(good, provider="cpu")
    assert opened == [good]


@pytest.mark.full  # times are compared where nothing else runs
def test_verifying_a_whole_generator_takes_little_more_than_its_sha256() -> None:
    """Measured: 4.9 ms for 6 MB, of which the sha256 takes 3.3 ms."""
    generator = Generator(100, (128, 256, 512, 1024), (1, 28, 28))
    metadata = Metadata(
        role="generator", image_shape=(1, 28, 28), latent_dim=100, noise="", dataset="", recipe="",
        step=0, weights_sha256="",
    )  # fmt: skip
    file = onnx_file(export_graph(generator), metadata)
    assert len(file) > 6_000_000
    ratios = []
    for _ in range(25):
        begin = time.thread_time()
        hashlib.sha256(file).digest()
        hashed = time.thread_time()
        verify_seal(file)
        require_allowed(read_bounded(file), metadata, len(file))
        ratios.append((time.thread_time() - hashed) / (hashed - begin))
    assert median(ratios) < 2
