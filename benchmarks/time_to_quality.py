"""Seconds of training until FCD falls under given values: textbook `bce`, ours `bce` and `r3gan`.

python -m benchmarks.time_to_quality --iterations 10000    # trains these, then compares

python -m benchmarks.time_to_quality runs/a runs/b         # compares runs that are there
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from benchmarks.curves import Curve, read_curve
from benchmarks.textbook import TextbookConfig, train_and_score
from training.config import RECIPES, DataConfig, NetworkConfig, TrainConfig
from training.run_folder.origin import describe_machine
from training.train import train


@dataclass(frozen=True)
class QualityConfig:
    """What to compare."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Folders of runs; none: train three now."""
    fcd: tuple[float, ...] = (64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
    """The values."""
    dataset: Literal["mnist", "fashion-mnist"] = "mnist"
    data_dir: Path = Path("data")
    iterations: int = 10_000
    """Of each that is trained."""
    conv: bool = False
    """Whether to train a fourth, `r3gan` with convolutions."""
    run_dir: Path = Path("runs/time-to-quality")
    """Where they are trained; must not exist."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    json: Path | None = None
    """Where to write the figures to as well."""


def train_all(config: QualityConfig) -> list[Path]:
    """The folders of new runs, scored about twenty times each."""
    ours: list[tuple[str, Literal["mlp", "conv"]]] = [("bce", "mlp"), ("r3gan", "mlp")]
    if config.conv:
        ours.append(("r3gan", "conv"))
    folders = [config.run_dir / "textbook"]
    epochs = max(1, round(config.iterations * 64 / 60_000))
    score_epochs = max(1, epochs // 20)
    train_and_score(
        TextbookConfig(
            folders[0],
            config.dataset,
            config.data_dir,
            epochs,
            score_epochs=score_epochs,
            device=config.device,
        )
    )
    for recipe, network in ours:
        folders.append(config.run_dir / f"{recipe}-{network}")
        settings = TrainConfig(
            data=DataConfig(config.dataset, config.data_dir),
            network=NetworkConfig(network=network),
            recipe=RECIPES[recipe],
            iterations=config.iterations,
            device=config.device,
            score_every=max(1, config.iterations // 20),
        )
        train(settings, folders[-1])
    return folders


def seconds_until(curve: Curve, fcd: float) -> float | None:
    """Of training until a scored checkpoint is below `fcd`; None where none is."""
    for minutes, scores in zip(curve.minutes, curve.scores, strict=True):
        if scores["fcd"] < fcd:
            return 60 * minutes
    return None


def compare(config: QualityConfig) -> dict[str, Any]:
    """All figures, as JSON values."""
    curves = [read_curve(run) for run in config.runs or train_all(config)]
    cuda = config.device != "cpu" and torch.cuda.is_available()
    return {
        "machine": describe_machine(torch.device("cuda" if cuda else "cpu")),
        "seconds_until_fcd": {
            f"{curve.dataset}, {curve.recipe}, {curve.name}": {
                f"{fcd:g}": seconds_until(curve, fcd) for fcd in config.fcd
            }
            for curve in curves
        },
    }


def table(figures: dict[str, Any]) -> str:
    """The figures for a person."""
    rows = figures["seconds_until_fcd"]
    width = max(map(len, rows))
    values = next(iter(rows.values()))
    lines = [f"{'seconds until FCD <':{width}}" + "".join(f"{value:>8}" for value in values)]
    for name, row in rows.items():
        cells = "".join(f"{'-' if s is None else format(s, '.0f'):>8}" for s in row.values())
        lines.append(f"{name:{width}}{cells}")
    return "\n".join(lines)


def main() -> None:
    """Train if need be, print, and write JSON if asked."""
    config = tyro.cli(
        QualityConfig, prog="python -m benchmarks.time_to_quality", description=__doc__
    )
    figures = compare(config)
    print(table(figures))
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        config.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
