"""Score generators against real images: a run's checkpoints, one checkpoint, or an artifact.

python -m export.score runs/mnist-20261123-154500

python -m export.score runs/mnist-20261123-154500/artifact --split test --json
"""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from inference.errors import reporting
from training.command_line import by_default, command_line


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    config = command_line(ScoreConfig, "export.score", __doc__, arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)
    return reporting(lambda: _score(config))


def _score(config: ScoreConfig) -> int:
    from export.scoring import RealImages, score  # torch only once the usage is right

    real = RealImages(config.dataset, config.data_dir, config.split)
    rows = {each.name: each.to_dict() for each in score(config.target, real, config.seed)}
    print(json.dumps(rows, indent=2) if config.json else _table(rows))
    return 0


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
