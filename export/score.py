"""Score generators against real images: all snapshots of a run, one snapshot, or an artifact.

python -m export.score runs/mnist-20261123-154500

python -m export.score runs/mnist-20261123-154500/artifact --split test --json
"""

if __name__ == "__main__":  # before the imports below, which take a second
    from inference.errors import end_at_interrupt

    end_at_interrupt()

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from inference.errors import reporting
from inference.runtime import telemetry
from inference.writing.console import print_result, safe_output
from training.command_line import by_default, command_line
from training.run_folder.scores import shown

if TYPE_CHECKING:
    from export.scoring import Scored


@dataclass(frozen=True)
class ScoreConfig:
    """What to score, and which real images to compare with."""

    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|CHECKPOINT|ARTIFACT")]
    """A run (all its generator snapshots), a snapshot (.pt), or an artifact (with onnxruntime)."""
    dataset: Annotated[str | None, by_default("what it was trained on", "NAME|FOLDER")] = None
    """Real images to compare with."""
    data_dir: Path = Path("data")
    """Folder that data sets are downloaded to."""
    split: Literal["train", "test"] = "train"
    """Training or test images."""
    seed: Annotated[int | None, by_default("the one that snapshots are chosen by", "INT")] = None
    """Seed of the noise, 0 to 2^63 - 1."""
    json: bool = False
    """Print JSON instead of a table."""


@safe_output()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    telemetry.switch_off()
    config = command_line(ScoreConfig, "export.score", __doc__, arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("training").setLevel(logging.INFO)
    return reporting(lambda: _score(config))


def _score(config: ScoreConfig) -> int:
    from export.scoring import RealImages, score  # PyTorch is imported only if the usage is right
    from training.config import DataConfig

    data = DataConfig(config.dataset) if config.dataset else None
    real = RealImages(data, config.data_dir, config.split)
    scored = list(score(config.target, real, config.seed))
    if config.json:
        print_result(json.dumps({each.name: each.to_dict() for each in scored}, indent=2))
    else:
        print_result(_table(scored))
    return 0


def _table(scored: "list[Scored]") -> str:
    width = max((len(each.name) for each in scored), default=0)
    columns = shown(each.scores for each in scored)
    lines = [" " * width + "".join(f"{score.name:>11}" for score in columns)]
    for each in scored:
        cells = (f"{score.text(each.scores):>11}" for score in columns)
        lines.append(f"{each.name:{width}}{''.join(cells)}")
    for each in scored:
        lines += [
            f"{each.name}, {of.name!r}: FCD {of.fcd:.4f}, excess {of.excess:.4f}; "
            f"{of.recognised:.1%} of {of.images} images recognised as this class, of real images "
            f"{of.real_recognised:.1%}"
            for of in each.classes
        ]
    for scores in [each.scores for each in scored[:1]]:
        lines.append(
            f"{scores.images} generated against as many {scores.split} images, floor "
            f"{scores.floor:.4f}, trace {scores.trace:.1f}, {scores.extractor} extractor "
            f"{scores.extractor_sha256}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
