"""The verdict at the end of a run: each rule's choice, scored on fresh noise."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.writing.pictures import grid, save_png
from training.config import TORCHVISION_DATASETS, DataConfig, TrainConfig
from training.data.datasets import load_images
from training.data.images import Images
from training.records.samples import as_pictures, class_grid
from training.run_folder.checkpoint import load_generator
from training.run_folder.folder import RunFolder
from training.run_folder.history import Choice, EpochRecord, Memory
from training.run_folder.scores import ClassScore, Scores
from training.run_folder.sealed_file import load
from training.scoring.class_scores import score_classes
from training.scoring.distances import nearest
from training.scoring.reference import SELECTION_SEED, Reference, reference_for
from training.scoring.selection import RULES, choose, write_best
from training.scoring.subject import Subject

_FRESH_SEED = SELECTION_SEED + 1
_NEAREST_IMAGES = 64
# Number of samples in the picture, and of columns.
_PAIRS, _COLUMNS = 16, 8


@dataclass(frozen=True)
class Verdict:
    """The choice of each rule, its scores on fresh noise, and a check for memorised images."""

    rule: str
    """The rule that was asked for."""
    choices: dict[str, Choice]
    scores: dict[str, Scores]
    """Scores of each choice, against the test images if the data set has some."""
    memory: Memory
    """Check of the choice by `rule`."""
    classes: list[ClassScore]
    """Scores of each class of that choice, if it is conditional."""

    @property
    def best(self) -> Choice:
        """The choice by the rule that was asked for."""
        return self.choices[self.rule]


def judge(
    config: TrainConfig,
    folder: RunFolder,
    epochs: Sequence[EpochRecord],
    images: Images,
    selection: Reference,
) -> Verdict:
    """Score the choice of each rule on fresh noise; write best.json, nearest.png and classes.png.

    selection: what the snapshots were scored against during the run.

    nearest.png has rows of samples above the training images nearest to them. classes.png, of a
    conditional run, has a row of samples for each class, all of the same noise.
    """
    test = _test_images(config.data, images.pixels.device)
    reference = reference_for(selection.extractor, images, test)
    epochs = _with_the_choice_by_loss(folder, epochs, selection)
    choices = {rule: choose(rule, epochs) for rule in RULES}
    generators = {
        rule: load_generator(load(folder.path / choice.checkpoint)).to(images.pixels.device)
        for rule, choice in choices.items()
    }
    measured = {record.step: record.scores for record in epochs}
    scores = {}
    for rule, generator in generators.items():
        fresh = reference.score(Subject.of(generator), _FRESH_SEED)
        scores[rule] = fresh.with_discriminator_of(measured[choices[rule].step])
    best = generators[config.select]
    samples = torch.cat([*Subject.of(best).images(_NEAREST_IMAGES, _FRESH_SEED)])
    verdict = Verdict(
        rule=config.select,
        choices=choices,
        scores=scores,
        memory=_compare_with_training_images(samples, images, test, folder.nearest),
        classes=score_classes(reference, Subject.of(best), _FRESH_SEED),
    )
    if best.classes:
        save_png(class_grid(best), folder.classes)
    write_best(folder, config.select, choices, **_findings(verdict))
    return verdict


def _with_the_choice_by_loss(
    folder: RunFolder, epochs: Sequence[EpochRecord], selection: Reference
) -> list[EpochRecord]:
    """The epochs, with scores of the choice by loss, so that the choice by FCD considers it too."""
    lowest = choose("g-loss", epochs)
    scored = list(epochs)
    for i, record in enumerate(epochs):
        if record.step == lowest.step and record.scores is None:
            content = load(folder.path / lowest.checkpoint)
            generator = load_generator(content).to(selection.real.features.device)
            scores = selection.score(Subject.of(generator), SELECTION_SEED)
            scored[i] = replace(record, scores=scores)
    return scored


def _test_images(data: DataConfig, device: torch.device) -> Images | None:
    """The test images of a data set; None if it has none."""
    if data.dataset not in TORCHVISION_DATASETS:
        return None
    return load_images(data, train=False).to(device)


def _compare_with_training_images(
    samples: Tensor, images: Images, test: Images | None, picture: Path
) -> Memory:
    """How far samples are from the nearest training images; writes a picture of some pairs."""
    distances, indices = nearest(samples, images.pixels)
    if test is None:  # each training image is the nearest to itself
        real, _ = nearest(images.pixels[:_NEAREST_IMAGES], images.pixels, skip=1)
    else:
        real, _ = nearest(test.pixels[:_NEAREST_IMAGES], images.pixels)
    pairs = torch.stack([samples[:_PAIRS], images.pixels[indices[:_PAIRS]]])  # (2, 16, C, H, W)
    rows = pairs.unflatten(1, (-1, _COLUMNS)).transpose(0, 1).flatten(0, 2)  # (32, C, H, W)
    save_png(grid(as_pictures(rows), _COLUMNS), picture)
    return Memory(float(distances.median()), float(real.median()))


def _findings(verdict: Verdict) -> dict[str, Any]:
    """The content of best.json besides the choices."""
    final = {rule: scores.to_dict() for rule, scores in verdict.scores.items()}
    findings: dict[str, Any] = {"final": final, "nearest": asdict(verdict.memory)}
    if verdict.classes:
        findings["classes"] = [each.to_dict() for each in verdict.classes]
    return findings
