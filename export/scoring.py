"""Score the snapshots of a run, one snapshot, or an artifact against real images."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from inference import Sampler
from training.config import DATASETS, ConfigError, DataConfig
from training.data.datasets import load_images
from training.data.images import DataError
from training.run_folder.checkpoint import checkpoint_facts, load_generator
from training.run_folder.config_file import read_config
from training.run_folder.folder import RunFolder
from training.run_folder.scores import ClassScore, Scores
from training.run_folder.sealed_file import load
from training.scoring.class_scores import score_classes
from training.scoring.extractor import extractor_for
from training.scoring.reference import SELECTION_SEED, Reference, reference_for
from training.scoring.subject import Subject


@dataclass(frozen=True)
class RealImages:
    """The real images that generators are compared with."""

    data: DataConfig | None = None
    """The data set and how to read it, by default the generator's. Size and channels of the images
    are always the generator's."""
    data_dir: Path = Path("data")
    split: Literal["train", "test"] = "train"


class Scored(NamedTuple):
    """A generator's scores."""

    name: str
    """The name of its file, and where it ran."""
    scores: Scores
    classes: list[ClassScore]
    """Scores of each class, for a conditional generator."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        classes = [each.to_dict() for each in self.classes]
        return self.scores.to_dict() | ({"classes": classes} if classes else {})


class _Candidate(NamedTuple):
    """A generator to score, and facts from its file."""

    name: str
    dataset: str
    image_shape: tuple[int, int, int]
    subject: Subject


def score(target: Path, real: RealImages, seed: int | None = None) -> Iterator[Scored]:
    """The scores of each generator in `target`: a run, a snapshot, or an artifact.

    seed: seed of the noise; by default the seed that snapshots are compared on.

    Raises:
        ConfigError: if the data set is unknown.
        ArtifactError, CheckpointError, DataError: if something cannot be read.
    """
    seed = SELECTION_SEED if seed is None else seed
    reference = None
    for candidate in _candidates(target):
        if reference is None:  # all generators of a run have one image shape
            reference = _reference(target, real, candidate)
        subject = candidate.subject
        scores = reference.score(subject, seed)
        yield Scored(candidate.name, scores, score_classes(reference, subject, seed))


def trained_on(target: Path, name: str) -> DataConfig:
    """The data set of that name; for a folder of images, its path from the run around `target`.

    Raises:
        ConfigError: if no run knows the path.
    """
    if name in DATASETS:
        return DataConfig(name)
    for folder in _runs_around(target):
        data = read_config(folder.path).data
        if Path(data.dataset).name == name:
            return data
    raise ConfigError(
        f"{target} was trained on a folder of images called {name}: say where it is with --dataset "
        f"FOLDER"
    )


def _runs_around(target: Path) -> Iterator[RunFolder]:
    """The run folder that a target is, or lies in."""
    for folder in map(RunFolder, (target, *target.parents[:2])):
        if folder.config.is_file():
            yield folder


def _reference(target: Path, real: RealImages, candidate: _Candidate) -> Reference:
    channels, height, width = candidate.image_shape
    if height != width or channels not in {1, 3}:
        raise DataError(f"images of {candidate.image_shape} have no data set to be compared with")
    data = replace(
        real.data or trained_on(target, candidate.dataset),
        data_dir=real.data_dir,
        image_size=height,
        channels=1 if channels == 1 else 3,
    )
    images = load_images(data)
    spare = next((run.extractor for run in _runs_around(target)), None)
    extractor = extractor_for(
        images, real.data_dir / "extractors", torch.device("cpu"), spare=spare
    )
    test = load_images(data, train=False) if real.split == "test" else None
    return reference_for(extractor, images, test)


def _candidates(target: Path) -> Iterator[_Candidate]:
    if target.suffix == ".pt":
        yield _from_checkpoint(target)
    elif (folder := RunFolder(target)).checkpoints.is_dir():
        yield from map(_from_checkpoint, folder.checkpoints_by_step().values())
    else:
        yield _from_artifact(target)


def _from_checkpoint(path: Path) -> _Candidate:
    content = load(path)
    generator = load_generator(content, str(path))
    facts = checkpoint_facts(content, str(path))
    return _Candidate(path.name, facts.dataset, generator.image_shape, Subject.of(generator))


def _from_artifact(path: Path) -> _Candidate:
    sampler = Sampler(path)
    metadata = sampler.metadata

    def generate(*inputs: Tensor) -> Tensor:
        pixels = torch.from_numpy(sampler.decode(*(tensor.numpy() for tensor in inputs)))
        return pixels.view(-1, *pixels.shape[1:3], metadata.image_shape[0]).permute(0, 3, 1, 2)

    subject = Subject(generate, metadata.latent_dim, metadata.classes)
    name = f"{path.name} on {sampler.provider}"
    return _Candidate(name, metadata.dataset, metadata.image_shape, subject)
