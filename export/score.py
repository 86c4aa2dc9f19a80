"""Score generators against real images: a run's checkpoints, one checkpoint, or an artifact.

python -m export.score runs/mnist-20261123-154500

python -m export.score runs/mnist-20261123-154500/artifact --split test --json
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from training.command_line import by_default, command_line

if TYPE_CHECKING:
    from torch import Tensor

    from training.scoring.scores import Reference, Scores


@dataclass(frozen=True)
class ScoreConfig:
    """What to score, and against what."""

    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|CHECKPOINT|ARTIFACT")]
    """A run (all its checkpoints), a checkpoint (.pt), or an artifact (through onnxruntime)."""
    dataset: Annotated[str | None, by_default("what it was trained on", "NAME|FOLDER")] = None
    """Real images to compare with."""
    data_dir: Path = Path("data")
    """Where data sets are downloaded to."""
    split: Literal["train", "test"] = "train"
    """Which of them."""
    seed: Annotated[int | None, by_default("the one checkpoints are chosen on", "INT")] = None
    """Of the noise, 0 to 2^63 - 1."""
    json: bool = False
    """Print JSON, not a table."""


@dataclass(frozen=True)
class _Subject:
    """A generator to score."""

    name: str
    dataset: str
    image_shape: tuple[int, int, int]
    latent_dim: int
    classes: tuple[str, ...]
    draw: "Callable[..., Tensor]"

    def score(self, reference: "Reference", seed: int) -> "Scores":
        return reference.score(self.draw, self.latent_dim, seed, len(self.classes))

    def score_classes(self, reference: "Reference", seed: int) -> dict[str, Any]:
        from training.scoring.class_scores import score_classes

        if not self.classes:
            return {}
        scores = score_classes(reference, self.draw, self.latent_dim, seed, self.classes)
        return {"classes": [each.to_dict() for each in scores]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    config = command_line(ScoreConfig, "export.score", __doc__, arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)
    from inference.artifact import ArtifactError
    from training.config import ConfigError
    from training.data.datasets import DataError
    from training.run_folder.checkpoint import CheckpointError

    try:
        rows = dict(_rows(config))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (ArtifactError, CheckpointError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(rows, indent=2) if config.json else _table(rows))
    return 0


def score(config: ScoreConfig) -> "Iterator[tuple[str, Scores]]":
    """The scores of each generator in `config.target`, with its name."""
    for subject, reference, seed in _compared(config):
        yield subject.name, subject.score(reference, seed)


def _rows(config: ScoreConfig) -> "Iterator[tuple[str, dict[str, Any]]]":
    """The same as JSON values, with the classes of conditional generators."""
    for subject, reference, seed in _compared(config):
        row = subject.score(reference, seed).to_dict()
        yield subject.name, row | subject.score_classes(reference, seed)


def _compared(config: ScoreConfig) -> "Iterator[tuple[_Subject, Reference, int]]":
    """Each generator, what it is compared with, and the seed of its noise."""
    from training.scoring.scores import SELECTION_SEED

    seed = SELECTION_SEED if config.seed is None else config.seed
    reference = None
    for subject in _subjects(config.target):
        if reference is None:  # all generators of a run have one image shape
            reference = _reference(config, subject)
        yield subject, reference, seed


def _reference(config: ScoreConfig, subject: _Subject) -> "Reference":
    import torch

    from training.config import DataConfig
    from training.data.datasets import DataError, load_images
    from training.scoring.extractor import extractor_for
    from training.scoring.scores import reference_for

    channels, height, width = subject.image_shape
    if height != width or channels not in {1, 3}:
        raise DataError(f"images of {subject.image_shape} have no data set to be compared with")
    data = DataConfig(
        dataset=config.dataset or trained_on(config.target, subject.dataset),
        data_dir=config.data_dir,
        image_size=height,
        channels=1 if channels == 1 else 3,
    )
    images = load_images(data)
    extractor = extractor_for(images, config.data_dir / "extractors", torch.device("cpu"))
    test = load_images(data, train=False) if config.split == "test" else None
    return reference_for(extractor, images, test)


def trained_on(target: Path, name: str) -> str:
    """The data set of that name; of a folder's place, the run that `target` is or lies in knows."""
    from training.config import DATASETS, ConfigError
    from training.run_folder.origin import read_config

    if name in DATASETS:
        return name
    for folder in (target, *target.parents[:2]):
        if (folder / "config.json").is_file():
            dataset = read_config(folder).data.dataset
            if Path(dataset).name == name:
                return dataset
    raise ConfigError(
        f"{target} was trained on a folder of images called {name}: say where it is with --dataset "
        f"FOLDER"
    )


def _subjects(target: Path) -> Iterator[_Subject]:
    if target.suffix == ".pt":
        yield _from_checkpoint(target)
    elif (target / "checkpoints").is_dir():
        for path in sorted((target / "checkpoints").glob("step-*.pt")):
            yield _from_checkpoint(path)
    else:
        yield _from_artifact(target)


def _from_checkpoint(path: Path) -> _Subject:
    import torch

    from training.run_folder.checkpoint import load, load_generator
    from training.scoring.scores import drawing_with

    content = load(path)
    generator = load_generator(content)
    draw = drawing_with(generator, torch.device("cpu"))
    shape = generator.image_shape, generator.latent_dim, generator.classes
    return _Subject(path.name, content["dataset"], *shape, draw)


def _from_artifact(path: Path) -> _Subject:
    import torch

    from inference import Sampler

    sampler = Sampler(path)
    metadata = sampler.metadata

    def draw(*inputs: "Tensor") -> "Tensor":
        pixels = torch.from_numpy(sampler.decode(*(tensor.numpy() for tensor in inputs)))
        return pixels.view(-1, *pixels.shape[1:3], metadata.image_shape[0]).permute(0, 3, 1, 2)

    name = f"{path.name} on {sampler.provider}"
    shape = metadata.image_shape, metadata.latent_dim, metadata.classes
    return _Subject(name, metadata.dataset, *shape, draw)


def _table(rows: dict[str, dict[str, Any]]) -> str:
    columns = ("fcd", "excess", "kid", "precision", "recall", "coverage", "class_tv")
    width = max(map(len, rows), default=0)
    lines = [" " * width + "".join(f"{column:>11}" for column in columns)]
    lines += [
        f"{name:{width}}" + "".join(f"{row[column]:11.4f}" for column in columns)
        for name, row in rows.items()
    ]
    for name, row in rows.items():
        lines += [
            f"{name}, {of['name']!r}: FCD {of['fcd']:.4f}, excess {of['excess']:.4f}; "
            f"{of['recognised']:.1%} of {of['images']} images recognised as it, of real ones "
            f"{of['real_recognised']:.1%}"
            for of in row.get("classes", ())
        ]
    for row in list(rows.values())[:1]:
        lines.append(
            f"{row['images']} generated against as many {row['split']} images, floor "
            f"{row['floor']:.4f}, trace {row['trace']:.1f}, {row['extractor']} extractor "
            f"{row['extractor_sha256']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
