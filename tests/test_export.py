"""The artifact: its files, the gate they pass, and what happens when they do not."""

import json
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from export import artifact_folder
from export.artifact_folder import ExportError, best_checkpoint, export
from export.generator_files import export_graph, load_torchscript
from export.parity import BATCHES, Check, ParityError, check_files, require_parity
from export.run import main
from inference import Sampler
from inference.artifact import Metadata, verify_seal
from inference.pictures import grid
from inference.session import open_session
from tests.conftest import TINY
from training.checkpoint import load, load_generator, save, weights_sha256
from training.loop import train
from training.networks import Generator

FILES = {"generator.onnx", "generator.ts", "parity.json"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_artifact_is_three_files(tiny_artifact: Path) -> None:
    assert contents(tiny_artifact).keys() == FILES


def test_the_graph_runs_on_old_runtimes_and_has_nothing_beside_it(tiny_artifact: Path) -> None:
    model = onnx.load(tiny_artifact / "generator.onnx", load_external_data=False)
    assert model.ir_version <= 8
    assert [(opset.domain, opset.version <= 18) for opset in model.opset_import] == [("", True)]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    shapes = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"z": ["n", 10], "images": ["n", 1, 8, 8], "pixels": ["n", 8, 8, 1]}


def test_both_files_carry_the_contract(tiny_artifact: Path, tiny_run: Path) -> None:
    verify_seal((tiny_artifact / "generator.onnx").read_bytes())
    metadata = Sampler(tiny_artifact).metadata
    extra = {"ganpack": ""}
    with pytest.warns(match="torch.jit.load"):
        torch.jit.load(tiny_artifact / "generator.ts", _extra_files=extra)
    assert Metadata.from_json(extra["ganpack"]) == metadata
    content = load(best_checkpoint(tiny_run))
    assert metadata.step == content["step"]
    assert metadata.scores == content["scores"]
    assert metadata.weights_sha256 == weights_sha256(load_generator(content))
    assert (metadata.recipe, metadata.classes) == ("bce", ())


def test_the_report_lists_every_check(tiny_artifact: Path) -> None:
    report = json.loads((tiny_artifact / "parity.json").read_text())
    done = {(check["file"], check["batch"]) for check in report["checks"]}
    assert done >= {(file, batch) for file in FILES - {"parity.json"} for batch in BATCHES}
    assert all(check["passed"] for check in report["checks"])
    assert all(check["max_difference"] <= check["tolerance"] == 1e-5 for check in report["checks"])
    assert report["sha256"].keys() == FILES - {"parity.json"}


def test_no_path_of_this_machine_is_in_the_onnx_file(tiny_artifact: Path) -> None:
    content = (tiny_artifact / "generator.onnx").read_bytes()
    for path in (Path.cwd(), Path.home(), Path(torch.__file__).parent, tiny_artifact.parent):
        assert str(path).encode() not in content
    assert b".py" not in content


def test_the_file_is_the_same_each_time(
    tiny_run: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "export.run", str(tiny_run), "--output", str(tmp_path / "a")]
    subprocess.run(command, check=True, capture_output=True)
    again = (tmp_path / "a" / "generator.onnx").read_bytes()
    assert again == (tiny_artifact / "generator.onnx").read_bytes()


@pytest.mark.parametrize("batch", [0, 1, 7, 256])  # 1 and a prime catch a frozen batch axis
def test_any_batch_size_runs(tiny_artifact: Path, batch: int) -> None:
    session, _ = open_session((tiny_artifact / "generator.onnx").read_bytes(), "cpu")
    z = np.zeros((batch, 10), np.float32)
    images, pixels = session.run(["images", "pixels"], {"z": z})
    assert (images.shape, images.dtype) == ((batch, 1, 8, 8), np.float32)
    assert (pixels.shape, pixels.dtype) == ((batch, 8, 8, 1), np.uint8)
    module = load_torchscript(tiny_artifact / "generator.ts", "cpu")
    assert module(torch.from_numpy(z)).shape == (batch, 1, 8, 8)


def test_exporting_changes_nothing_of_the_model() -> None:
    generator = Generator(10, (16, 32), (1, 8, 8)).eval()
    before = deepcopy(generator.state_dict())
    random_state = torch.get_rng_state()
    export_graph(generator)
    assert not generator.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(before[name], value) for name, value in generator.state_dict().items())


def test_another_generator_fails_the_gate(tiny_artifact: Path, tiny_run: Path) -> None:
    generator = load_generator(load(best_checkpoint(tiny_run)))
    require_parity(check_files(generator, tiny_artifact))
    with torch.no_grad():
        next(generator.parameters()).add_(0.01)
    checks = check_files(generator, tiny_artifact)
    with pytest.raises(ParityError, match=r"generator\.ts on torch cpu .* batch of 1,"):
        require_parity(checks)


@pytest.mark.parametrize(
    ("difference", "levels", "passed"),
    [
        (1e-5, 1, True),
        (1e-5, None, True),
        (1.01e-5, 0, False),
        (0.0, 2, False),
        (float("nan"), 0, False),
        (float("inf"), None, False),
    ],
)
def test_the_tolerances_hold(difference: float, levels: int | None, passed: bool) -> None:
    check = Check("generator.onnx", "somewhere", 7, difference, 1e-5, levels)
    assert check.passed == passed
    json.dumps(check.to_dict(), allow_nan=False)
    if not passed:
        with pytest.raises(ParityError, match=r"generator\.onnx on somewhere .* batch of 7"):
            require_parity([check])


def test_nan_weights_fail_the_gate(tiny_run: Path, tmp_path: Path) -> None:
    content = load(best_checkpoint(tiny_run))
    content["ema"]["layers.0.weight"][0, 0] = float("nan")
    save(content, tmp_path / "nan.pt")
    with pytest.raises(ParityError, match="nan"):
        export(tmp_path / "nan.pt", tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_a_failing_export_leaves_the_artifact_before_it(
    tiny_run: Path,
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_artifact, folder)
    before = contents(folder)

    def wrong(generator: Generator, folder: Path) -> list[Check]:
        checks = check_files(generator, folder)
        return [*checks[:-1], replace(checks[-1], max_difference=0.5)]

    monkeypatch.setattr(artifact_folder, "check_files", wrong)
    assert main([str(tiny_run), "--output", str(folder)]) == 1
    error = capsys.readouterr().err
    for part in ("generator.onnx", "batch of 1000", "0.5 apart", "1 of 10 checks"):
        assert part in error
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_new_artifact_takes_the_place_of_the_old(
    tiny_run: Path, tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_artifact, folder)
    other = min((tiny_run / "checkpoints").iterdir())
    assert main(["--checkpoint", str(other), "--output", str(folder)]) == 0
    assert "checks against PyTorch passed" in capsys.readouterr().out
    assert Sampler(folder).metadata.step == load(other)["step"]
    assert Sampler(folder).metadata.step != Sampler(tiny_artifact).metadata.step
    assert list(tmp_path.iterdir()) == [folder]


def test_folders_of_others_are_left_alone(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(ExportError, match=r"other files \(thesis\.tex\)"):
        export(best_checkpoint(tiny_run), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_newest_run_is_the_default(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "runs" / "a")
    assert main([]) == 0
    assert contents(tmp_path / "runs" / "a" / "artifact").keys() == FILES


def test_nothing_to_export_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "train one first" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1
    assert "no best checkpoint" in capsys.readouterr().err
    assert main(["--checkpoint", "nowhere.pt", "--output", "a"]) == 1
    assert "nowhere.pt: no such file" in capsys.readouterr().err


def test_a_steep_network_is_measured_by_its_own_float32_error(
    tiny_run: Path, tmp_path: Path
) -> None:
    """Where PyTorch's float32 is itself far from float64, no file can be expected to be nearer."""
    content = load(best_checkpoint(tiny_run))
    content["ema"]["layers.5.weight"] *= 300
    save(content, tmp_path / "steep.pt")
    checks = export(tmp_path / "steep.pt", tmp_path / "artifact")
    assert all(check.passed for check in checks)
    assert max(check.max_difference for check in checks) > 1e-5
    assert 1e-5 < checks[0].tolerance < 1e-2


def test_colour_goes_all_the_way(tmp_path: Path) -> None:
    config = replace(TINY, data=replace(TINY.data, channels=3), iterations=4)
    train(config, tmp_path / "run")
    export(best_checkpoint(tmp_path / "run"), tmp_path / "artifact")
    sampler = Sampler(tmp_path / "artifact", provider="cpu")
    assert sampler.sample(5).shape == (5, 8, 8, 3)
    assert sampler.metadata.image_shape == (3, 8, 8)
    last = tmp_path / "run" / "samples" / "step-0000004.png"
    with Image.open(last) as image:
        assert image.mode == "RGB"
        drawn = np.asarray(image).astype(int)
    assert np.abs(grid(sampler.sample(64)) - drawn).max() <= 1
