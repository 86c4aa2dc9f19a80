"""The end of a run: what each rule chose, measured on what it was not chosen on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from inference.writing.pictures import grid, save_png
from training.config import TORCHVISION_DATASETS, TrainConfig
from training.data.datasets import load_images
from training.data.images import Images
from training.records.samples import class_grid
from training.run_folder.checkpoint import load_generator
from training.run_folder.folder import RunFolder
from training.run_folder.history import EpochRecord
from training.run_folder.scores import Scores
from training.run_folder.sealed_file import load
from training.scoring.class_scores import ClassScore, score_classes
from training.scoring.distances import nearest
from training.scoring.extractor import Extractor
from training.scoring.reference import SELECTION_SEED, reference_for
from training.scoring.selection import RULES, Choice, choose, write_best
from training.scoring.subject import Subject

_FRESH_SEED = SELECTION_SEED + 1
_NEAREST_IMAGES = 64


@dataclass(frozen=True)
class Memory:
    """How far images are from the nearest training image: a copied one would be at zero.

    Medians over a few images, in grey levels (root mean square over the pixels).
    """

    generated: float
    real: float
    """The same of test images, or without any of training images, themselves not counted."""


@dataclass(frozen=True)
class Verdict:
    """The choice of each rule, its scores on fresh noise, and whether it has learned by heart."""

    rule: str
    """The rule that was asked for."""
    choices: dict[str, Choice]
    scores: dict[str, Scores]
    """Against the test images, where the data set has some."""
    memory: Memory
    """Of the choice by `rule`."""
    classes: list[ClassScore]
    """Of it too, where it is conditional."""

    @property
    def best(self) -> Choice:
        """The choice by the rule that was asked for."""
        return self.choices[self.rule]


def judge(
    config: TrainConfig,
    folder: RunFolder,
    epochs: Sequence[EpochRecord],
    images: Images,
    extractor: Extractor,
) -> Verdict:
    """Score the choices, write best.json, nearest.png and of a conditional run classes.png.

    nearest.png: rows of samples, each above the training images nearest to them.
    classes.png: a row of samples for each class, of the same noise.
    """
    device = images.pixels.device
    test = None
    if config.data.dataset in TORCHVISION_DATASETS:
        test = load_images(config.data, train=False).to(device)
    reference = reference_for(extractor, images, test)
    choices = {rule: choose(rule, epochs) for rule in RULES}
    scores, drawn = {}, {}
    for rule, choice in choices.items():
        generator = load_generator(load(folder.path / choice.checkpoint)).to(device)
        subject = Subject.of(generator)
        scores[rule] = reference.score(subject, _FRESH_SEED)
        drawn[rule] = subject.images(_NEAREST_IMAGES, _FRESH_SEED)
        if rule == config.select:
            of_classes = score_classes(reference, subject, _FRESH_SEED)
            if generator.classes:
                save_png(class_grid(generator), folder.classes)
    distances, indices = nearest(drawn[config.select], images.pixels)
    real = (images if test is None else test).pixels[:_NEAREST_IMAGES]
    real_distances, _ = nearest(real, images.pixels, skip=1 if test is None else 0)
    memory = Memory(float(distances.median()), float(real_distances.median()))
    pairs = torch.stack(
        [drawn[config.select][:16], images.pixels[indices[:16]]]
    )  # (2, 16, C, H, W)
    rows = pairs.unflatten(1, (2, 8)).transpose(0, 1).flatten(0, 2).permute(0, 2, 3, 1)
    pixels = rows.cpu().numpy()
    save_png(grid(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, 8), folder.nearest)
    final = {rule: each.to_dict() for rule, each in scores.items()}
    findings: dict[str, Any] = {"final": final, "nearest": asdict(memory)}
    if of_classes:
        findings["classes"] = [each.to_dict() for each in of_classes]
    write_best(folder, config.select, choices, **findings)
    return Verdict(config.select, choices, scores, memory, of_classes)
