"""Artifacts with classes: their files, and images of a given class."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from export import parity
from export.artifact_folder import best_checkpoint, export
from export.generator_files import load_torchscript
from export.parity import ParityError, check_files, require_parity
from export.score import main as score_main
from inference import ArtifactError, Sampler
from inference.noise import labels, latents
from inference.run import main
from inference.runtime.session import open_session
from inference.writing import picture_files
from inference.writing.pictures import grid
from tests.support.forging import contract_with, resealed
from tests.support.runs import TINY
from training.gan.networks import to_pixels
from training.run_folder.checkpoint import load_generator
from training.run_folder.sealed_file import load

CLASSES = tuple("0123456789")


@pytest.fixture(scope="module")
def sampler(conditional_artifact: Path) -> Sampler:
    return Sampler(conditional_artifact, provider="cpu")


def drawn_by_file(artifact: Path, count: int, *, seed: int, start: int, label: int) -> list[Any]:
    """Run sampler.onnx; its pixels, z and labels."""
    session, _ = open_session((artifact / "sampler.onnx").read_bytes(), "cpu")
    numbers = {"seed": seed, "start": start, "count": count, "label": label}
    feeds = {name: np.array(number, np.int64) for name, number in numbers.items()}
    results: list[Any] = session.run(["pixels", "z", "labels"], feeds)
    return results


def test_the_files_take_labels_as_the_design_has_it(conditional_artifact: Path) -> None:
    inputs = {
        file: [
            (value.name, value.type.tensor_type.elem_type, len(value.type.tensor_type.shape.dim))
            for value in onnx.load(conditional_artifact / file).graph.input
        ]
        for file in ("generator.onnx", "sampler.onnx")
    }
    int64 = TensorProto.INT64
    assert inputs["generator.onnx"] == [("z", TensorProto.FLOAT, 2), ("labels", int64, 1)]
    scalars = [(name, int64, 0) for name in ("seed", "start", "count", "label")]
    assert inputs["sampler.onnx"] == scalars
    module = load_torchscript(conditional_artifact / "generator.ts", "cpu")
    for count in (0, 1, 7):
        z, numbers = torch.zeros(count, 10), torch.zeros(count, dtype=torch.long)
        assert module(z, numbers).shape == (count, 1, 8, 8)


def test_the_contract_names_the_classes(sampler: Sampler) -> None:
    assert sampler.metadata.classes == CLASSES
    assert [golden["label"] for golden in sampler.metadata.golden] == [
        labels(1, 10, seed=golden["seed"], start=golden["image"])[0]
        for golden in sampler.metadata.golden
    ]
    assert sampler.check().passed


def test_golden_images_of_other_labels_fail(
    conditional_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(conditional_artifact, provider="cpu")
    golden = tuple(dict(image, label=9 - image["label"]) for image in sampler.metadata.golden)
    sampler.metadata = replace(sampler.metadata, golden=golden)
    result = sampler.check()
    assert not result.passed
    assert not result.noise_exact


def test_images_of_a_label_are_pytorchs(
    sampler: Sampler, conditional_run: Path, conditional_artifact: Path
) -> None:
    generator = load_generator(load(best_checkpoint(conditional_run)))
    z = latents(9, 10, seed=4, start=7)
    for label in (0, 3, 9):
        with torch.no_grad():
            images = generator(torch.from_numpy(z), torch.full((9,), label))
        expected = to_pixels(images)[..., 0].numpy().astype(int)
        images_of = sampler.sample(9, seed=4, start=7, label=label)
        assert np.abs(images_of - expected).max() <= 1
        np.testing.assert_array_equal(
            sampler.sample(9, seed=4, start=7, label=str(label)), images_of
        )
        np.testing.assert_array_equal(sampler.decode(z, label), images_of)
        np.testing.assert_array_equal(sampler.decode(z, np.full(9, label)), images_of)
        pixels, drawn_z, numbers = drawn_by_file(
            conditional_artifact, 9, seed=4, start=7, label=label
        )
        np.testing.assert_array_equal(pixels[..., 0], images_of)
        assert (drawn_z.tobytes(), numbers.tolist()) == (z.tobytes(), [label] * 9)
    assert not np.array_equal(sampler.sample(9, label=1), sampler.sample(9, label=2))


@pytest.mark.parametrize(
    ("seed", "start"), [(0, 0), (2**40 + 9, 2**33 + 1), (2**63 - 1, 2**63 - 9)]
)
def test_without_a_label_they_are_drawn_from_their_own_stream(
    sampler: Sampler, conditional_artifact: Path, seed: int, start: int
) -> None:
    place: dict[str, Any] = {"seed": seed, "start": start}
    drawn = sampler.labels(9, **place)
    np.testing.assert_array_equal(drawn, labels(9, 10, **place))
    images = sampler.sample(9, **place)
    np.testing.assert_array_equal(sampler.decode(latents(9, 10, **place), drawn), images)
    pixels, z, numbers = drawn_by_file(conditional_artifact, 9, label=-1, **place)
    np.testing.assert_array_equal(pixels[..., 0], images)
    assert z.tobytes() == latents(9, 10, **place).tobytes()
    np.testing.assert_array_equal(numbers, drawn)
    for i, label in enumerate(drawn.tolist()):
        alone = sampler.sample(1, seed=seed, start=start + i, label=label)
        np.testing.assert_array_equal(alone[0], images[i])


@pytest.mark.parametrize("label", [None, 3])
def test_one_image_is_one_image(
    sampler: Sampler, conditional_artifact: Path, label: int | None
) -> None:
    """Labels do not depend on count, batch, tile, thread, order of calls, or pickling."""
    whole = sampler.sample(1300, seed=5, label=label)
    np.testing.assert_array_equal(sampler.sample(700, seed=5, start=600, label=label), whole[600:])
    for batch_size in (1, 7, 1024):
        count = min(1300, 40 * batch_size)
        batches = list(sampler.stream(count, seed=5, batch_size=batch_size, label=label))
        np.testing.assert_array_equal(np.concatenate(batches), whole[:count])
    out = np.empty((1300, 8, 8), np.uint8)
    assert sampler.sample(1300, seed=5, label=label, out=out) is out
    np.testing.assert_array_equal(out, whole)
    for other in (Sampler(conditional_artifact, provider="cpu", threads=2), pickled(sampler)):
        np.testing.assert_array_equal(other.sample(1300, seed=5, label=label), whole)


def pickled(sampler: Sampler) -> Sampler:
    again: Sampler = pickle.loads(pickle.dumps(sampler))
    return again


def test_a_walk_keeps_its_class(sampler: Sampler) -> None:
    a, b = sampler.latents(2, seed=1)
    z = sampler.interpolate(a, b, 5)
    images = sampler.decode(z, "7")
    np.testing.assert_array_equal(images[0], sampler.sample(1, seed=1, label=7)[0])
    np.testing.assert_array_equal(images[-1], sampler.sample(1, seed=1, start=1, label=7)[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.sample(1, label=10), ValueError, r"0 … 9 or one of '0', '1', .*got 10$"),
        (lambda s: s.sample(1, label=-1), ValueError, "got -1$"),
        (lambda s: s.stream(1, label="ten"), ValueError, "got 'ten'$"),
        (lambda s: s.sample(1, label=2.5), TypeError, r"whole number or a name, got 2\.5"),
        (lambda s: s.decode(s.latents(2)), ValueError, "needs labels: 0 … 9"),
        (lambda s: s.decode(s.latents(2), [1]), ValueError, r"\(2,\), got int64 \(1,\)"),
        (lambda s: s.decode(s.latents(2), [1.0, 2.0]), ValueError, "got float64"),
        (lambda s: s.decode(s.latents(2), [1, 10]), ValueError, "got 1 to 10"),
        (lambda s: s.decode(s.latents(2), "ten"), ValueError, "got 'ten'"),
    ],
)
def test_a_label_that_is_no_class_is_an_error(
    sampler: Sampler, call: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(sampler)


def test_an_unconditional_artifact_takes_no_label(tiny_artifact: Path) -> None:
    sampler = Sampler(tiny_artifact, provider="cpu")
    calls: list[Callable[[], object]] = [
        lambda: sampler.sample(1, label=3),
        lambda: sampler.stream(1, label="3"),
        lambda: sampler.decode(sampler.latents(1), [3]),
        lambda: sampler.decode(sampler.latents(1), 3),
        lambda: sampler.labels(1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="this artifact has no classes"):
            call()


def test_the_gate_sees_labels_that_are_not_pytorchs(
    conditional_artifact: Path, conditional_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load_generator(load(best_checkpoint(conditional_run)))
    require_parity(check_files(generator, conditional_artifact))
    wrong = load_generator(load(best_checkpoint(conditional_run)))
    wrong.one_hot = wrong.one_hot.roll(1, 0)
    with pytest.raises(ParityError, match="values are up to"):
        require_parity(check_files(wrong, conditional_artifact))
    monkeypatch.setattr(parity, "SEED", 5)  # the images that are expected of the sampler
    with pytest.raises(ParityError, match=r"sampler\.onnx .*not those of the noise stream"):
        require_parity(check_files(generator, conditional_artifact))


def test_float16_keeps_the_labels(conditional_run: Path, tmp_path: Path) -> None:
    export(best_checkpoint(conditional_run), tmp_path / "a", "fp16", data_dir=TINY.data.data_dir)
    half = Sampler(tmp_path / "a", provider="cpu")
    assert half.metadata.precision == "fp16"
    assert half.metadata.classes == CLASSES
    assert half.check().passed
    assert not np.array_equal(half.sample(9, label=1), half.sample(9, label=2))


def test_an_artifact_scores_as_its_checkpoint(
    conditional_run: Path, conditional_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = best_checkpoint(conditional_run)
    options = ["--data-dir", str(TINY.data.data_dir), "--json"]
    found: list[float] = []
    of_classes = []
    for target in (checkpoint, conditional_artifact):
        assert score_main([str(target), *options]) == 0
        (scores,) = json.loads(capsys.readouterr().out).values()
        found.append(scores["fcd"])
        of_classes.append(scores["classes"])
    assert found[0] == load(checkpoint)["scores"]["fcd"]
    assert found[1] == pytest.approx(found[0], rel=1e-3)
    assert [each["name"] for each in of_classes[1]] == list(CLASSES)
    for ours, theirs in zip(*of_classes, strict=True):
        assert theirs["fcd"] == pytest.approx(ours["fcd"], rel=1e-2)
        assert 0 <= theirs["recognised"] <= 1
    assert score_main([str(conditional_artifact), *options[:2]]) == 0
    table = capsys.readouterr().out
    assert f"'3': FCD {of_classes[1][3]['fcd']:.4f}" in table


@pytest.mark.parametrize("label", ["3", "cat"])
def test_the_command_draws_a_class_by_number_or_name(
    sampler: Sampler, tmp_path: Path, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    renamed = tmp_path / "generator.onnx"
    names = [*CLASSES[:3], "cat", *CLASSES[4:]]
    file = sampler._arguments["artifact"]
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "generator.onnx").write_bytes(file)
    renamed.write_bytes(resealed(tmp_path / "given", contract_with(classes=names)))
    options = ["--provider", "cpu", "-n", "5", "--seed", "2", "--output", str(tmp_path / "a.npy")]
    assert main([str(renamed), *options, "--label", label]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), sampler.sample(5, seed=2, label=3))
    assert "of seed 2, class " in capsys.readouterr().out
    assert json.loads(Sampler(renamed).metadata.to_json())["classes"] == names


def test_the_command_draws_a_row_for_each_class(
    sampler: Sampler, conditional_artifact: Path, tmp_path: Path
) -> None:
    output = tmp_path / "classes.png"
    options = ["--provider", "cpu", "--seed", "2", "--output", str(output)]
    assert main([str(conditional_artifact), "--per-class", "-n", "4", *options]) == 0
    rows = [sampler.sample(4, seed=2, label=label) for label in range(10)]
    with Image.open(output) as picture:
        np.testing.assert_array_equal(np.asarray(picture), grid(np.concatenate(rows), 4))
    assert main([str(conditional_artifact), "--per-class", *options, "--force"]) == 0
    with Image.open(output) as picture:
        assert picture.size == (10 * 10 + 2, 10 * 10 + 2)


def test_captions_say_the_class(
    sampler: Sampler, conditional_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def observed(images: Any, captions: Any) -> Any:
        seen.extend(captions)
        return grid(images, captions=captions)

    monkeypatch.setattr(picture_files, "grid", observed)
    options = ["--captions", "-n", "3", "--seed", "2", "--provider", "cpu", "--force"]
    for label in ([], ["--label", "7"]):
        output = str(tmp_path / "a.png")
        assert main([str(conditional_artifact), *options, *label, "--output", output]) == 0
    drawn = sampler.labels(3, seed=2)
    assert seen[:3] == [f"2/{i} {label}" for i, label in enumerate(drawn)]
    assert seen[3:] == ["2/0 7", "2/1 7", "2/2 7"]


def test_a_walk_of_the_command_stays_in_one_class(
    sampler: Sampler, conditional_artifact: Path, tmp_path: Path
) -> None:
    first = int(sampler.labels(1, seed=2, start=4)[0])
    for given, label in (([], first), (["--label", "6"], 6)):
        output = tmp_path / f"walk{label}.webp"
        options = ["--walk", "2", "--steps", "3", "--seed", "2", "--start", "4", *given]
        assert main([str(conditional_artifact), *options, "--output", str(output)]) == 0
        with Image.open(output) as file:
            animation: Any = file
            for frame, image in ((0, 0), (3, 1)):
                animation.seek(frame)
                expected = sampler.sample(1, seed=2, start=4 + image, label=label)[0]
                np.testing.assert_array_equal(np.asarray(animation.convert("L")), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--label", "10"], "got 10"),
        (["--label", "cat"], "got 'cat'"),
        (["--per-class", "--label", "1"], "no --label"),
        (["--per-class", "--output", "a.npy"], "a .png or .jpg file"),
        (["--per-class", "--walk", "3"], "makes a grid of all classes"),
    ],
)
def test_bad_labels_are_bad_usage(
    conditional_artifact: Path, arguments: list[str], message: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([str(conditional_artifact), *arguments])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--label", "3"], ["--per-class"]])
def test_without_classes_there_is_nothing_to_ask_for(
    tiny_artifact: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([str(tiny_artifact), *option])
    assert exit_info.value.code == 2
    assert "this artifact has no classes" in capsys.readouterr().err


def grown(model: onnx.ModelProto) -> None:
    """Concatenate z with itself repeatedly, so that each node doubles its width."""
    (concat,) = (node for node in model.graph.node if node.op_type == "Concat")
    concat.input[:] = ["z", "z2"]
    model.graph.node.insert(
        0, helper.make_node("Concat", ["embedding", "embedding"], ["z2"], axis=1)
    )
    model.graph.node.insert(0, model.graph.node.pop(1))


def along_images(model: onnx.ModelProto) -> None:
    (concat,) = (node for node in model.graph.node if node.op_type == "Concat")
    concat.attribute[0].i = 0


def of_z(model: onnx.ModelProto) -> None:
    (gather,) = (node for node in model.graph.node if node.op_type == "Gather")
    gather.input[:] = ["z", "labels"]


def of_nothing(model: onnx.ModelProto) -> None:
    (gather,) = (node for node in model.graph.node if node.op_type == "Gather")
    del gather.input[:]


@pytest.mark.parametrize("change", [grown, along_images, of_z, of_nothing])
def test_labels_open_no_door_to_other_graphs(
    conditional_artifact: Path, change: Callable[[onnx.ModelProto], None]
) -> None:
    with pytest.raises(ArtifactError, match="its graph is not a generator's"):
        Sampler(resealed(conditional_artifact, change))


def test_classes_and_graph_must_agree(conditional_artifact: Path, tiny_artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="its graph is not"):
        Sampler(resealed(conditional_artifact, contract_with(classes=[])), provider="cpu")
    with pytest.raises(ArtifactError, match="its graph is not what its contract says"):
        Sampler(resealed(tiny_artifact, contract_with(classes=["a"])), provider="cpu")
