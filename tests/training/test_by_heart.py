"""Held-out images, and how far the discriminator learns its own images by heart."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.support.comparing import events, read_lines
from tests.support.runs import TINY
from training.config import DataConfig, TrainConfig
from training.data.datasets import load_held_out, load_images
from training.data.images import Images, hold_out
from training.gan.networks import Discriminator
from training.pages.report import write_report
from training.run_folder.config_file import read_config
from training.run_folder.scores import Scores
from training.scoring.by_heart import ByHeart
from training.scoring.subject import Subject
from training.train import train

CLASSES = ("few", "many")


def grey(*levels: int) -> Images:
    """One image of 2×2 for each level."""
    pixels = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return Images(pixels.contiguous(), None, ())


def linear(weight: float, bias: list[float]) -> Discriminator:
    """A discriminator of 2×2 images, whose logits are weighted sums of the pixels."""
    discriminator = Discriminator((1,), (1, 2, 2), len(bias) if len(bias) > 1 else 0)
    last = nn.Linear(4, len(bias))
    nn.init.constant_(last.weight, weight)
    last.bias.data = torch.tensor(bias)
    discriminator.layers = nn.Sequential(nn.Flatten(), last)
    return discriminator


def numbered(count: int) -> Images:
    """Images that hold their number, the first of a class of its own."""
    pixels = torch.arange(count).view(-1, 1, 1, 1).to(torch.uint8)
    return Images(pixels, (torch.arange(count) > 0).long(), CLASSES)


@pytest.mark.parametrize(
    ("images", "share", "count"),
    [
        (199, 0.05, 0),
        (200, 0.05, 10),  # the fewest: a twentieth of 200
        (240, 0.0, 0),
        (240, 0.01, 10),  # never fewer
        (240, 0.5, 120),
        (30_000, 0.05, 1000),  # never more
    ],
)
def test_a_share_is_held_out(images: int, share: float, count: int) -> None:
    kept, held_out = hold_out(numbered(images), share)
    assert (0 if held_out is None else len(held_out)) == count
    assert len(kept) == images - count


def test_held_out_images_are_the_same_each_time_and_none_is_trained_on() -> None:
    images = numbered(240)
    kept, held_out = hold_out(images, 0.5)
    assert held_out is not None
    again = hold_out(images, 0.5)[1]
    assert again is not None
    assert torch.equal(again.pixels, held_out.pixels)
    both = torch.cat([kept.pixels, held_out.pixels]).flatten()
    assert both.sort().values.tolist() == list(range(240))
    assert kept.pixels.flatten().tolist() == sorted(kept.pixels.flatten().tolist())
    assert kept.labels is not None
    assert kept.labels[0] == 0  # its class has one image, which stays


@pytest.mark.parametrize(
    ("held_out", "generated", "expected"),
    [(200, 0, 0.0), (0, 0, 1.0), (100, 0, 0.5), (250, 0, -0.25), (100, 200, None), (9, 210, None)],
)
def test_it_is_where_held_out_images_lie_between_training_and_generated_ones(
    held_out: int, generated: int, expected: float | None
) -> None:
    """Where generated images have the higher logit, there is no measure."""
    discriminator = linear(3.0, bias=[0.5])
    fake = grey(generated).pixels
    subject = Subject(lambda z: fake.expand(len(z), -1, -1, -1), latent_dim=4)
    measure = ByHeart.of(grey(200, 200), grey(held_out))
    scores = measure.added(Scores(fcd=7.0, images=5), discriminator, subject, seed=0)
    found = scores.to_dict()
    assert (scores.fcd, found["held_out"]) == (7.0, 1)
    assert found.get("by_heart") == (None if expected is None else pytest.approx(expected))
    assert found["logit_train"] - found["logit_generated"] == pytest.approx(
        3 * 4 * (200 - generated) / 127.5
    )


def test_a_conditional_discriminator_is_asked_about_the_label_of_each_image() -> None:
    discriminator = linear(0.0, bias=[0.0, 1.0])
    real = replace(grey(*range(8)), labels=torch.tensor([0] * 6 + [1] * 2), classes=CLASSES)
    asked: list[torch.Tensor] = []

    def generate(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        asked.append(labels)
        return grey(*[0] * len(z)).pixels

    subject = Subject(generate, 4, CLASSES)
    scores = ByHeart.of(real, real).added(Scores(images=6), discriminator, subject, seed=3)
    assert scores.logit_train == scores.logit_held_out == pytest.approx(0.25)
    assert scores.logit_generated == pytest.approx(float(asked[0].double().mean()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images without classes, so that no classifier is trained."""
    folder = tmp_path_factory.mktemp("images")
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_every_run_shows_it(folder: Path, tmp_path: Path) -> None:
    data = DataConfig(str(folder), tmp_path / "data", image_size=8)
    recipe = replace(TINY.recipe, batch_size=64)
    run_dir = tmp_path / "run"
    train(replace(TINY, data=data, recipe=recipe, epochs=2, score_every=1), run_dir)
    first, second = (record["scores"] for record in read_lines(run_dir, "epoch"))
    for scores in (first, second):
        gap = scores["logit_train"] - scores["logit_generated"]
        expected = (scores["logit_train"] - scores["logit_held_out"]) / gap
        assert scores["by_heart"] == pytest.approx(expected)
        assert scores["held_out"] == 10
    shown = [event.value for event in events(run_dir).Scalars("quality/by_heart")]
    assert shown == pytest.approx([first["by_heart"], second["by_heart"]])
    best = json.loads((run_dir / "best.json").read_text())
    assert best["final"]["fcd"]["by_heart"] in {first["by_heart"], second["by_heart"]}
    page = write_report(run_dir, tmp_path / "report.html").read_text()
    assert "Does the discriminator learn by heart?" in page
    assert "10 held-out real images" in page
    names = re.findall(r">(_child\d+|[a-z-]+ images)<", page)
    assert set(names) == {"held-out images", "training images", "generated images"}


def test_a_folder_is_trained_on_without_its_held_out_images(folder: Path) -> None:
    data = DataConfig(str(folder), image_size=8)
    images, held_out = load_held_out(data)
    assert held_out is not None
    assert (len(images), len(held_out)) == (190, 10)
    assert load_images(data).sha256() == images.sha256()
    assert len(load_images(replace(data, held_out=0.0))) == 200


def test_a_run_from_before_held_back_nothing(tmp_path: Path) -> None:
    config = {"data": {"dataset": str(tmp_path)}}
    for content in (config, {}):
        (tmp_path / "config.json").write_text(json.dumps({"config": content}))
        assert read_config(tmp_path).data.held_out_share == 0
    assert TrainConfig().data.held_out_share > 0
