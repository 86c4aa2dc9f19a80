"""`python -m export.run --precision fp16`."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export import half_precision
from export.artifact_folder import best_checkpoint, export
from export.run import main
from export.scoring import Scored
from inference import Sampler
from inference.artifact import Metadata
from tests.support.runs import TINY
from training.run_folder.scores import Scores

DATA_DIR = TINY.data.data_dir


@pytest.fixture(scope="module")
def half(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "artifact"
    export(best_checkpoint(tiny_run), folder, "fp16", data_dir=DATA_DIR)
    return folder


@pytest.mark.parametrize("file", ["generator.onnx", "sampler.onnx"])
def test_weights_are_float16_and_the_rest_is_not(half: Path, file: str) -> None:
    model = onnx.load(half / file)
    weights = [t for t in model.graph.initializer if "layers" in t.name]
    assert len(weights) == 6
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    ends = [*model.graph.input, *model.graph.output]
    assert onnx.TensorProto.FLOAT16 not in {end.type.tensor_type.elem_type for end in ends}


def test_it_scores_within_5_percent_and_says_so(half: Path, tiny_artifact: Path) -> None:
    metadata = Sampler(half).metadata
    assert metadata.precision == "fp16"
    fp32, fp16 = metadata.scores["fcd_fp32_file"], metadata.scores["fcd_fp16_file"]
    assert abs(fp16 - fp32) <= 0.05 * fp32
    assert fp32 == pytest.approx(metadata.scores["fcd"], rel=1e-3)
    extra = {"ganpack": ""}
    with pytest.warns(match="torch.jit.load"):
        torch.jit.load(half / "generator.ts", _extra_files=extra)
    torchscript = Metadata.from_json(extra["ganpack"])
    assert torchscript.precision == "fp32"
    assert torchscript.golden == Sampler(tiny_artifact).metadata.golden


def test_its_images_are_nearly_those_of_float32(half: Path, tiny_artifact: Path) -> None:
    sampler = Sampler(half, provider="cpu")
    assert sampler.check().passed
    ours, whole = sampler.sample(500), Sampler(tiny_artifact, provider="cpu").sample(500)
    assert 0 < np.abs(ours.astype(int) - whole).max() <= 3
    np.testing.assert_array_equal(ours[7:9], sampler.sample(2, start=7))


@pytest.mark.parametrize(
    ("scores", "passes"), [([10.0, 10.4], True), ([10.0, 10.6], False), ([10.0, math.nan], False)]
)
def test_worse_images_are_not_exported(
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scores: list[float],
    passes: bool,
) -> None:
    def score(*_: Any) -> list[Scored]:
        return [Scored("a file", Scores(fcd=scores.pop(0)), [])]

    monkeypatch.setattr(half_precision, "score", score)
    arguments = [str(tiny_run), "--output", str(tmp_path / "artifact"), "--precision", "fp16"]
    assert main(arguments) == (0 if passes else 1)
    assert (tmp_path / "artifact").exists() == passes
    if not passes:
        error = capsys.readouterr().err
        assert "with float16 weights FCD is" in error
        assert "instead of 10, more than 5% away" in error


def test_without_its_data_set_it_says_so(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_run), "--output", str(tmp_path / "a"), "--precision", "fp16"]
    assert main([*arguments, "--dataset", str(tmp_path / "nowhere")]) in {1, 2}
    assert "nowhere" in capsys.readouterr().err
