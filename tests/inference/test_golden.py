"""Golden images in the artifact."""

import hashlib
import json
import logging
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.artifact_folder import best_checkpoint
from inference import ArtifactError, Sampler
from inference.artifact import CONTRACT_KEY, SEAL_KEY, UNSEALED, seal
from inference.noise import latents
from inference.run import main
from training.gan.networks import to_pixels
from training.run_folder.checkpoint import load_generator
from training.run_folder.sealed_file import load


def altered(artifact: Path, change: Callable[[onnx.ModelProto, dict[str, Any]], None]) -> bytes:
    """generator.onnx with another graph and contract, and a valid seal."""
    model = onnx.load(artifact / "generator.onnx")
    entries = {entry.key: entry for entry in model.metadata_props}
    contract = json.loads(entries[CONTRACT_KEY].value)
    change(model, contract)
    entries[CONTRACT_KEY].value = json.dumps(contract)
    entries[SEAL_KEY].value = UNSEALED
    return seal(model.SerializeToString())


def test_the_golden_images_pass_where_they_were_made(tiny_artifact: Path) -> None:
    result = Sampler(tiny_artifact, provider="cpu").check()
    assert result.passed
    assert (result.images, result.noise_exact, result.provider) == (4, True, "cpu")
    assert result.largest_difference <= 1
    assert result.versions["onnxruntime"] == onnxruntime.__version__
    assert result.allowed_pixels == 1  # 0.1 % of 256


def test_they_are_the_images_of_pytorch_in_float64(tiny_artifact: Path, tiny_run: Path) -> None:
    generator = load_generator(load(best_checkpoint(tiny_run))).double()
    streams = []
    for golden in Sampler(tiny_artifact).metadata.golden:
        seed, image = golden["seed"], golden["image"]
        streams.append((seed, image))
        z = latents(1, 10, seed=seed, start=image)
        with torch.inference_mode():
            pixels = to_pixels(generator(torch.from_numpy(z).double()))
        assert b64decode(golden["pixels"]) == pixels.numpy().tobytes()
        assert b64decode(golden["z"]) == z.tobytes()
        assert golden["z_sha256"] == hashlib.sha256(z.tobytes()).hexdigest()
    assert streams == [(0, 0), (0, 63), (2**40 + 9, 2**33 + 1), (2**53 - 1, 2**53 - 2)]


def wrong_weights(model: onnx.ModelProto, _: dict[str, Any]) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("layers.5.bias"))
    tensor.raw_data = (np.frombuffer(tensor.raw_data, np.float32) + 0.2).tobytes()


def weights_of(value: float) -> Callable[[onnx.ModelProto, dict[str, Any]], None]:
    def change(model: onnx.ModelProto, _: dict[str, Any]) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.endswith("layers.2.weight"))
        tensor.raw_data = np.full(tensor.dims, value, np.float32).tobytes()

    return change


def wrong_noise(_: onnx.ModelProto, contract: dict[str, Any]) -> None:
    contract["golden"][2]["z_sha256"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (wrong_weights, "golden images FAILED"),
        (weights_of(np.nan), "golden images FAILED"),
        (weights_of(np.inf), "golden images FAILED"),
        (wrong_noise, "noise: WRONG"),
    ],
)
def test_other_images_or_another_noise_fail(
    tiny_artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[onnx.ModelProto, dict[str, Any]], None],
    complaint: str,
) -> None:
    file = tmp_path / "generator.onnx"
    file.write_bytes(altered(tiny_artifact, change))
    result = Sampler(file).check()
    assert not result.passed
    assert complaint in str(result)
    assert main([str(file), "--check"]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("levels", "differing", "passed"), [(1, 3, True), (1, 4, False), (2, 1, False), (0, 0, True)]
)
def test_the_verdict(tiny_artifact: Path, levels: int, differing: int, passed: bool) -> None:
    result = replace(
        Sampler(tiny_artifact).check(),
        largest_difference=levels,
        differing_pixels=differing,
        allowed_pixels=3,
    )
    assert result.passed == passed


@pytest.mark.parametrize(
    "golden",
    [
        {},
        {"seed": -1, "image": 0, "z_sha256": "", "pixels": ""},
        {"seed": 0, "image": 2**63, "z_sha256": "", "pixels": ""},
        {"seed": "0", "image": 0, "z_sha256": "", "pixels": ""},
        {"seed": 0, "image": 0, "z_sha256": "", "pixels": "AAAA"},
        {"seed": 0, "image": 0, "z_sha256": "", "pixels": "not base64"},
        {"seed": 0, "image": 0, "z_sha256": "", "pixels": 5},
    ],
)
def test_unreadable_golden_images_are_an_artifact_error(
    tiny_artifact: Path, golden: dict[str, Any]
) -> None:
    def change(_: onnx.ModelProto, contract: dict[str, Any]) -> None:
        contract["golden"] = [golden]

    with pytest.raises(ArtifactError, match="golden images cannot be read"):
        Sampler(altered(tiny_artifact, change)).check()


def test_an_artifact_from_before_golden_images_says_so(tiny_artifact: Path) -> None:
    def change(_: onnx.ModelProto, contract: dict[str, Any]) -> None:
        del contract["golden"], contract["precision"]

    sampler = Sampler(altered(tiny_artifact, change))
    assert sampler.metadata.precision == "fp32"
    with pytest.raises(ArtifactError, match="no golden images"):
        sampler.check()


def test_check_and_info_on_the_command_line(
    tiny_artifact: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert main([str(tiny_artifact), "--check"]) == 0
    output = capsys.readouterr().out
    for part in ("provider: cpu", f"onnxruntime {onnxruntime.__version__}", "passed", "of 1 allow"):
        assert part in output
    caplog.clear()
    assert main([str(tiny_artifact), "--info"]) == 0
    assert not caplog.records  # nothing of devices, because no image is generated
    said = capsys.readouterr().out
    lines = dict(line.split(":", 1) for line in said.splitlines())
    assert len(lines) == len(said.splitlines()) == 10
    assert lines["data set"].strip() == "digits"
    assert lines["images"].strip() == "8×8, grey"
    assert " fcd " in lines["scores"]
    assert main([str(tiny_artifact), "--info", "--json"]) == 0
    contract = json.loads(capsys.readouterr().out)
    assert contract == json.loads(Sampler(tiny_artifact).metadata.to_json())
    assert contract["noise"] == "philox4x32-10/u16-quantile/1"
