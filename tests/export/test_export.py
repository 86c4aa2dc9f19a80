"""The artifact: its files, their comparison with PyTorch, and what happens if they differ."""

import getpass
import hashlib
import json
import math
import random
import shutil
import subprocess
import sys
import zipfile
from copy import deepcopy
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from export import artifact_folder, model_card
from export.artifact_folder import ExportError, best_checkpoint, export
from export.generator_files import export_graph, load_torchscript, write_torchscript
from export.parity import (
    Check,
    ParityError,
    check_files,
    golden_images,
    parity_inputs,
    require_parity,
)
from export.run import main
from inference import ArtifactError, Sampler
from inference.artifact import Metadata, verify_seal
from inference.errors import presentable
from inference.noise import normal_quantiles
from inference.runtime.session import open_session
from inference.writing.pictures import grid
from tests.support.runs import TINY
from training.gan.networks import Generator
from training.run_folder.checkpoint import load_generator, weights_sha256
from training.run_folder.sealed_file import load, save
from training.train import train

FILES = {"generator.onnx", "sampler.onnx", "generator.ts"}
ALL_FILES = FILES | {"parity.json", "README.md", "samples.png"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_artifact_is_six_files(tiny_artifact: Path) -> None:
    assert contents(tiny_artifact).keys() == ALL_FILES


SHAPES = {
    "generator.onnx": {"z": ["n", 10], "images": ["n", 1, 8, 8], "pixels": ["n", 8, 8, 1]},
    "sampler.onnx": {
        "seed": [], "start": [], "count": [], "pixels": ["n", 8, 8, 1], "z": ["n", 10]
    },
}  # fmt: skip


@pytest.mark.parametrize("file", SHAPES)
def test_the_graphs_run_on_old_runtimes_and_have_nothing_beside_them(
    tiny_artifact: Path, file: str
) -> None:
    model = onnx.load(tiny_artifact / file, load_external_data=False)
    assert model.ir_version <= 8
    assert [(opset.domain, opset.version <= 18) for opset in model.opset_import] == [("", True)]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert all(not tensor.external_data for tensor in model.graph.initializer)
    shapes = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == SHAPES[file]


def test_each_file_carries_the_contract(tiny_artifact: Path, tiny_run: Path) -> None:
    metadata = Sampler(tiny_artifact).metadata
    for file, role in (("generator.onnx", "generator"), ("sampler.onnx", "sampler")):
        model = (tiny_artifact / file).read_bytes()
        verify_seal(model)
        session, _ = open_session(model, "cpu")
        contract = session.get_modelmeta().custom_metadata_map["ganpack"]
        assert Metadata.from_json(contract) == replace(metadata, role=role)
    extra = {"ganpack": ""}
    with pytest.warns(match="torch.jit.load"):
        torch.jit.load(tiny_artifact / "generator.ts", _extra_files=extra)
    assert Metadata.from_json(extra["ganpack"]) == metadata
    content = load(best_checkpoint(tiny_run))
    assert metadata.step == content["step"]
    assert metadata.scores == content["scores"]
    assert metadata.weights_sha256 == weights_sha256(load_generator(content))
    assert (metadata.recipe, metadata.classes, metadata.precision) == ("bce", (), "fp32")
    assert metadata.noise == "philox4x32-10/u16-quantile/1"
    assert metadata.versions.keys() == {"python", "onnxruntime", "ganpack", "torch", "onnx"}
    assert 0 < metadata.parity["max_difference"] <= metadata.parity["tolerance"]
    assert len(metadata.golden) == 4


def test_the_report_lists_every_check(tiny_artifact: Path) -> None:
    report = json.loads((tiny_artifact / "parity.json").read_text())
    done = {(check["file"], check["batch"]) for check in report["checks"]}
    assert done == {(file, batch) for file in FILES for batch in (0, 1, 2, 7, 64, 1000)}
    for check in report["checks"]:
        assert check["passed"]
        gives = "noise_exact" if check["file"] == "sampler.onnx" else "max_difference"
        assert check[gives] is not None
        if check["file"] != "generator.ts":
            assert check["max_pixel_difference"] <= 1
            assert check["differing_pixels"] <= 64 * check["batch"] / 1000 + 1
            assert check["batch_independent"]  # not promised everywhere, but true here
    assert report["summary"] == Sampler(tiny_artifact).metadata.parity
    assert report["summary"]["batch_independent"] == ["generator.onnx", "sampler.onnx"]
    for file, digest in report["sha256"].items():
        assert hashlib.sha256((tiny_artifact / file).read_bytes()).hexdigest() == digest
    assert report["sha256"].keys() == ALL_FILES - {"parity.json"}


def test_the_inputs_of_the_gate_hold_the_extremes() -> None:
    z = parity_inputs(100)
    assert z.shape == (1000, 100)
    assert len(np.unique(z, axis=0)) == 1000
    most = normal_quantiles().max()
    assert abs(z).max() == most == pytest.approx(4.325, abs=1e-3)
    for row in (np.zeros(100), np.full(100, most), np.full(100, -most)):
        assert (z[:7] == row).all(1).any()
    assert ((abs(z[:7]) > 0) & (abs(z[:7]) < 1e-20)).all(1).any()
    assert (abs(z[:64]) == most).all(1).sum() == 35
    assert abs(z[64:].std() - 1) < 0.01


def test_the_model_card_says_what_it_is(tiny_artifact: Path) -> None:
    card = (tiny_artifact / "README.md").read_text("utf-8")
    metadata = Sampler(tiny_artifact).metadata
    for part in ("`digits`", "`bce`", "CC BY 4.0", metadata.weights_sha256, "![", "| fcd |"):
        assert part in card
    for file in FILES:
        assert f"| `{file}` | {(tiny_artifact / file).stat().st_size:,} |" in card
    assert "{" not in card.split("---", 2)[2]
    assert "class_counts" not in card  # a list is no score that can be read
    with Image.open(tiny_artifact / "samples.png") as image:
        np.testing.assert_array_equal(np.asarray(image), grid(Sampler(tiny_artifact).sample(64)))


@pytest.mark.parametrize(
    "name",
    ["<script>", "`a`", "``", "a|b", "![x](http://x)", "a\n---\n# b", '"', "#", "\u202e", "", " "],
)
def test_the_model_card_shows_odd_names_as_they_are(
    tiny_artifact: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    yaml = pytest.importorskip("yaml")
    shutil.copytree(tiny_artifact, tmp_path, dirs_exist_ok=True)
    metadata = Sampler(tiny_artifact).metadata
    monkeypatch.setattr(model_card, "package_metadata", lambda _: Message())
    plain = replace(metadata, scores={"fcd": 1e-5}, classes=("a",), versions={"numpy": "2.4"})
    odd = replace(
        plain, dataset=name, recipe=name, classes=(name, "b"), scores={name: name, "fcd": 1e-5},
        versions={name: name},
    )  # fmt: skip
    kinds, shown = [], ""
    for each in (plain, odd):
        model_card.write_model_card(tmp_path, each)
        _, head, card = (tmp_path / "README.md").read_text("utf-8").split("---\n", 2)
        found = markdown.parse(card)
        inline = [part for token in found for part in token.children or []]
        kinds.append({token.type for token in [*found, *inline]})
        shown = " ".join(token.content for token in inline)
        assert yaml.safe_load(head)["model-index"][0]["results"][0]["metrics"][0]["value"] == 1e-5
    # No other markup than with plain names.
    wanted = presentable(name).strip() or "(no name)"
    assert shown.count(wanted) >= 3
    assert "<script" not in markdown.render(card)
    assert kinds[0] == kinds[1]
    assert yaml.safe_load(head)["model-index"][0]["name"] == presentable(name)


def test_the_model_card_names_the_address_of_the_project(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Message()
    package["Project-URL"] = "Source, https://example.org/ganpack"
    monkeypatch.setattr(model_card, "package_metadata", lambda _: package)
    shutil.copytree(tiny_artifact, tmp_path, dirs_exist_ok=True)
    model_card.write_model_card(tmp_path, Sampler(tiny_artifact).metadata)
    assert "Source: <https://example.org/ganpack>." in (tmp_path / "README.md").read_text("utf-8")


def test_the_model_card_begins_as_model_hubs_read_it(tiny_artifact: Path) -> None:
    yaml = pytest.importorskip("yaml")
    card = (tiny_artifact / "README.md").read_text("utf-8")
    start, head, _ = card.split("---\n", 2)
    assert start == ""
    found = yaml.safe_load(head)
    scores = Sampler(tiny_artifact).metadata.scores
    assert found["license"] == "cc-by-4.0"
    assert found["library_name"] == "ganpack"
    assert {"gan", "onnx"} <= set(found["tags"])
    (result,) = found["model-index"][0]["results"]
    assert result["dataset"] == {"name": "digits", "type": "digits"}
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["fcd"] == pytest.approx(scores["fcd"], abs=1e-7)
    assert found["metrics"] == list(values)


def test_no_path_of_this_machine_and_no_user_name_is_in_any_file(tiny_artifact: Path) -> None:
    found = {path.name: path.read_bytes() for path in tiny_artifact.iterdir()}
    with zipfile.ZipFile(tiny_artifact / "generator.ts") as archive:
        found |= {name: archive.read(name) for name in archive.namelist()}
    folders = [Path.cwd(), Path.home(), Path(torch.__file__).parent, tiny_artifact.parent]
    words = [str(path) for path in folders] + ["site-packages", "stack_trace", "Traceback"]
    if getpass.getuser() != "root":  # an English word
        words.append(getpass.getuser())
    for name, content in found.items():
        for word in words:
            assert word.encode() not in content, (name, word)
    for name in ("generator.onnx", "sampler.onnx"):
        assert b".py" not in found[name]


@pytest.mark.slow
def test_the_files_are_the_same_from_another_process(
    tiny_run: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "export.run", str(tiny_run), "--output", str(tmp_path / "a")]
    subprocess.run(command, check=True, capture_output=True)
    for file in ("generator.onnx", "sampler.onnx", "samples.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tiny_artifact / file).read_bytes(), file
    # TorchScript numbers the classes that a process has traced, so the size of its file may differ.
    cards = [
        [line for line in (folder / "README.md").read_text().splitlines() if ".ts" not in line]
        for folder in (tmp_path / "a", tiny_artifact)
    ]
    assert cards[0] == cards[1]


@pytest.mark.parametrize("batch", [0, 1, 7, 256])  # 1 and a prime catch a frozen batch axis
def test_any_batch_size_runs(tiny_artifact: Path, batch: int) -> None:
    session, _ = open_session((tiny_artifact / "generator.onnx").read_bytes(), "cpu")
    z = np.zeros((batch, 10), np.float32)
    images, pixels = session.run(["images", "pixels"], {"z": z})
    assert (images.shape, images.dtype) == ((batch, 1, 8, 8), np.float32)
    assert (pixels.shape, pixels.dtype) == ((batch, 8, 8, 1), np.uint8)
    module = load_torchscript(tiny_artifact / "generator.ts", "cpu")
    assert module(torch.from_numpy(z)).shape == (batch, 1, 8, 8)


@pytest.mark.parametrize("training", [False, True])
def test_exporting_changes_nothing_of_the_model(
    tiny_artifact: Path, tmp_path: Path, training: bool
) -> None:
    generator = Generator(10, (16, 32), (1, 8, 8)).train(training)
    before = deepcopy(generator.state_dict())
    random_states = torch.get_rng_state(), random.getstate()
    export_graph(generator)
    write_torchscript(generator, Sampler(tiny_artifact).metadata, tmp_path / "generator.ts")
    check_files(generator, tiny_artifact)
    golden_images(generator)
    assert generator.training == training
    assert all(module.training == training for module in generator.modules())
    assert torch.equal(torch.get_rng_state(), random_states[0])
    assert random.getstate() == random_states[1]
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
    ("figures", "passed"),
    [
        ({"max_difference": 1e-5, "max_pixel_difference": 1, "differing_pixels": 2}, True),
        ({"max_difference": 1e-5}, True),
        ({"max_difference": 1.01e-5}, False),
        ({"max_difference": float("nan")}, False),
        ({"max_difference": float("inf")}, False),
        ({"max_pixel_difference": 2, "differing_pixels": 1}, False),
        ({"max_pixel_difference": 1, "differing_pixels": 3}, False),
        ({"noise_exact": True}, True),
        ({"noise_exact": False}, False),
    ],
)
def test_the_tolerances_hold(figures: dict[str, Any], passed: bool) -> None:
    check = Check("generator.onnx", "somewhere", 7, 1e-5, 2, batch_independent=True, **figures)
    assert check.passed == passed
    json.dumps(check.to_dict(), allow_nan=False)
    if not passed:
        with pytest.raises(ParityError, match=r"generator\.onnx on somewhere .* batch of 7"):
            require_parity([check])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["layers.0.weight", "layers.5.bias", "layers.3.running_var"])
def test_a_snapshot_with_nan_or_infinity_is_named_and_not_exported(
    name: str, value: float, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = load(best_checkpoint(tiny_run))
    content["ema"][name].view(-1)[-1] = value
    save(content, tmp_path / "diverged.pt")
    arguments = ["--checkpoint", str(tmp_path / "diverged.pt"), "--output", str(tmp_path / "new")]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'diverged.pt'}: its weights {name} have NaN or infinity in them" in error
    assert not (tmp_path / "new").exists()


def test_a_snapshot_that_generates_nan_is_not_exported(tiny_run: Path, tmp_path: Path) -> None:
    content = load(best_checkpoint(tiny_run))
    for name in ("layers.0.weight", "layers.2.weight", "layers.5.weight"):
        content["ema"][name] *= 1e30  # the sums are infinite in float32, and their differences NaN
    save(content, tmp_path / "steep.pt")
    with pytest.raises(ParityError, match=r"steep\.pt: its images have NaN or infinity"):
        export(tmp_path / "steep.pt", tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_a_file_that_no_sampler_would_open_is_not_an_artifact(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from inference.model_files import own

    def refuse(*_: object) -> int:
        raise ArtifactError("its graph is another")

    monkeypatch.setattr(own, "require_allowed", refuse)
    with pytest.raises(ExportError, match=r"no sampler would open the exported file: .*another"):
        export(best_checkpoint(tiny_run), tmp_path / "artifact")
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

    def wrong(generator: Generator, folder: Path, stored: Generator) -> list[Check]:
        checks = check_files(generator, folder, stored)
        return [*checks[:-1], replace(checks[-1], max_difference=0.5)]

    monkeypatch.setattr(artifact_folder, "check_files", wrong)
    assert main([str(tiny_run), "--output", str(folder)]) == 1
    error = capsys.readouterr().err
    for part in ("sampler.onnx", "batch of 1000", "0.5 apart", "1 of 18 checks"):
        assert part in error
    assert contents(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("error", [OSError("it ends"), KeyboardInterrupt("it ends")])
def test_a_swap_that_fails_puts_the_old_artifact_back(
    tiny_run: Path,
    tiny_artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    folder = tmp_path / "artifact"
    shutil.copytree(tiny_artifact, folder)
    before = contents(folder)
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(type(error), match="it ends"):
        export(best_checkpoint(tiny_run), folder)
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


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("file", "file is a file"),
        ("file/artifact", "artifact cannot be made, as .*/file is no folder"),
        ("loop", "loop is a symbolic link that leads to itself"),
        ("link_to_file", "link_to_file is a file"),
        (".", r"\. is the folder that the command runs in"),
        ("..", r"\.\. is the folder that the command runs in"),
        ("/", "/ is a mount point"),
        ("/proc", "/proc is a mount point"),
        ("mounted", "mounted is a mount point"),
        ("bound here", "bound here is a mount point"),
        ("readonly/new", "readonly/new cannot be written, because .*/readonly is read-only"),
    ],
)
def test_what_cannot_be_replaced_is_said_before_the_work(
    output: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner"
    for name in ("mounted", "bound here", "readonly"):
        (inner / name).mkdir(parents=True)
    (inner / "file").touch()
    (inner / "loop").symlink_to(inner / "loop")
    (inner / "link_to_file").symlink_to("file")
    mounts = {
        "mounted": ["-t", "tmpfs", "tmpfs"],
        "bound here": ["--bind", str(tmp_path)],
        "readonly/new": ["-t", "tmpfs", "-o", "ro", "tmpfs"],
    }
    mounted = inner / output.partition("/")[0]
    monkeypatch.chdir(inner)
    if output in mounts:
        command = ["mount", *mounts[output], str(mounted)]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(ExportError, match=f"{problem}.*: name an empty or a new folder"):
            export(Path("no-such.pt"), Path(output))
    finally:
        if output in mounts:
            subprocess.run(["umount", str(mounted)], check=True)


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_is_followed(there: bool, tiny_run: Path, tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    link.symlink_to(real)
    if there:
        real.mkdir(parents=True)
        (real / "generator.onnx").touch()
    export(best_checkpoint(tiny_run), link)
    assert link.is_symlink()
    assert contents(real).keys() == ALL_FILES
    assert list(real.parent.iterdir()) == [real]


def test_the_newest_run_is_the_default(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, tmp_path / "runs" / "a")
    assert main([]) == 0
    assert contents(tmp_path / "runs" / "a" / "artifact").keys() == ALL_FILES


def test_nothing_to_export_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([]) == 1
    assert "train one first" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 1
    assert "no best snapshot" in capsys.readouterr().err
    assert main(["--checkpoint", "nowhere.pt", "--output", "a"]) == 1
    assert "nowhere.pt: no such file" in capsys.readouterr().err


def test_a_steep_network_is_measured_by_its_own_float32_error(
    tiny_run: Path, tmp_path: Path
) -> None:
    """If PyTorch's float32 is far from float64, no file can be nearer."""
    content = load(best_checkpoint(tiny_run))
    content["ema"]["layers.5.weight"] *= 300
    save(content, tmp_path / "steep.pt")
    checks = export(tmp_path / "steep.pt", tmp_path / "artifact")
    assert all(check.passed for check in checks)
    assert max(check.max_difference or 0 for check in checks) > 1e-5
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
