"""Training with labels, and the files of such a run."""

import json
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inference.noise import labels, latents
from inference.writing.pictures import grid
from tests.support.comparing import assert_same_state
from tests.support.runs import CONDITIONAL
from training.config import ConfigError
from training.data.batches import Batches
from training.data.datasets import load_images
from training.data.images import DataError, Images
from training.gan.networks import to_pixels
from training.pages.report import write_report
from training.run import main
from training.run_folder.checkpoint import load_generator
from training.run_folder.resume_settings import resumed_config
from training.run_folder.sealed_file import load
from training.scoring.class_scores import score_classes
from training.scoring.extractor import extractor_for
from training.scoring.reference import reference_for, split_reals
from training.scoring.subject import Subject
from training.train import train

CLASSES = tuple("0123456789")


def test_a_batch_has_the_labels_of_its_images() -> None:
    images = load_images(CONDITIONAL.data)
    assert images.labels is not None
    batches = Batches(images, 500, seed=0, conditional=True)
    for step in (0, 3, 9):  # the fourth batch continues into the next epoch
        found, indices = batches.labels_at(step), batches.indices(step)
        assert found is not None
        assert torch.equal(found, images.labels[indices])
    assert Batches(images, 500, seed=0).labels_at(0) is None


def test_images_without_labels_cannot_be_learned_by_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Images(torch.zeros(20, 1, 8, 8, dtype=torch.uint8), None, ())
    with pytest.raises(
        DataError, match=r"--conditional needs labelled images.*subfolder of its own"
    ):
        Batches(plain, 4, seed=0, conditional=True)
    for i in range(20):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    arguments = ["--dataset", str(tmp_path), "--conditional", "--device", "cpu"]
    assert main([*arguments, "--batch-size", "4", "--run-dir", str(tmp_path / "run")]) == 1
    assert "--conditional needs labelled images" in capsys.readouterr().err


def test_the_checkpoint_draws_the_classes_that_it_names(conditional_run: Path) -> None:
    path = max(conditional_run.glob("checkpoints/*.pt"))
    generator = load_generator(load(path))
    assert generator.classes == CLASSES
    # The grids of the run have random labels, like the sampler's images.
    z, drawn = generator.inputs(64)
    assert np.array_equal(z.numpy(), latents(64, 10))
    assert np.array_equal(drawn.numpy(), labels(64, 10))
    with torch.no_grad():
        pixels = to_pixels(generator(z, drawn))[..., 0].numpy()
    with Image.open(conditional_run / "samples" / f"{path.stem}.png") as image:
        np.testing.assert_array_equal(np.asarray(image), grid(pixels))


def test_a_conditional_run_goes_on_as_if_it_had_never_stopped(
    conditional_run: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    train(replace(CONDITIONAL, iterations=8), run_dir)  # within an epoch
    train(CONDITIONAL, run_dir, resume=True)
    assert_same_state(conditional_run, run_dir)


def test_the_end_of_a_run_shows_its_classes(conditional_run: Path, tmp_path: Path) -> None:
    best = json.loads((conditional_run / "best.json").read_text())
    assert [each["name"] for each in best["classes"]] == list(CLASSES)
    generator = load_generator(load(conditional_run / best["checkpoint"]))
    z = torch.from_numpy(latents(10, 10))
    with torch.no_grad():
        rows = [to_pixels(generator(z, torch.full((10,), label))) for label in range(10)]
    with Image.open(conditional_run / "classes.png") as image:
        expected = grid(torch.cat(rows)[..., 0].numpy(), 10)
        np.testing.assert_array_equal(np.asarray(image), expected)
    page = unescape(write_report(conditional_run, tmp_path / "report.html").read_text())
    for each in best["classes"]:
        assert f"<td>{each['name']}</td><td>{100 * each['recognised']:.1f} %</td>" in page
    assert "One row for each class" in page


def test_each_class_is_scored_against_its_own_real_images() -> None:
    images = load_images(CONDITIONAL.data)
    assert images.labels is not None
    extractor = extractor_for(images, CONDITIONAL.data.data_dir / "extractors", torch.device("cpu"))
    reference = reference_for(extractor, images, None)
    _, others = split_reals(images)
    assert others.labels is not None
    swapped = {0: 0, 1: 7, 2: 2}  # asked for a 1, the generator gives a 7

    def draw(z: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        (label,) = asked.unique().tolist()
        return others.pixels[others.labels == swapped.get(label, label)][: len(z)]

    scores = {s.name: s for s in score_classes(reference, Subject(draw, 10, CLASSES), 0)}
    assert list(scores) == list(CLASSES)
    # The floor is the distance of other real images of the class.
    for name in ("0", "2", "6"):
        assert scores[name].excess == pytest.approx(0, abs=1e-6)
        assert scores[name].recognised > 0.8
        assert scores[name].real_recognised > 0.8
        assert 50 < scores[name].images < 110
    assert scores["1"].excess > 0.3
    assert scores["1"].recognised < 0.2
    assert score_classes(reference, Subject(draw, 10, ("a", "b")), 0) == []


def test_a_run_stays_conditional(conditional_run: Path, tmp_path: Path) -> None:
    other = replace(CONDITIONAL, network=replace(CONDITIONAL.network, conditional=False))
    with pytest.raises(ConfigError, match="--conditional True -> False"):
        resumed_config(CONDITIONAL, other)
    with pytest.raises(ConfigError, match="a resumed run cannot change it"):
        resumed_config(CONDITIONAL, other, frozenset({"conditional"}))
    shutil.copytree(conditional_run, tmp_path / "run")
    assert main(["--resume", str(tmp_path / "run")]) == 0  # without naming it again
