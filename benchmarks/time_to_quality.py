"""Seconds of training until FCD falls below given values: textbook loop, `bce` and `r3gan`.

python -m benchmarks.time_to_quality --iterations 10000    # train runs, then compare them

python -m benchmarks.time_to_quality runs/a runs/b         # compare these runs
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from benchmarks.curves import Curve, read_curve
from benchmarks.engines import TINY, data_for
from benchmarks.figures import device_named, write_figures
from benchmarks.textbook import TextbookConfig, train_and_score
from training.config import NetworkConfig, TrainConfig, usual_recipe
from training.engine.machine import describe_machine
from training.train import train


@dataclass(frozen=True)
class QualityConfig:
    """What to compare."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Run folders; without any, new runs are trained."""
    fcd: tuple[float, ...] = (64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
    """Values of FCD."""
    dataset: Literal["mnist", "fashion-mnist", "digits"] = "mnist"
    data_dir: Path = Path("data")
    iterations: int = 10_000
    """Length of each run that is trained."""
    textbook: bool = True
    """Also train the textbook loop."""
    conv: bool = False
    """Also train `r3gan` with convolutions."""
    tiny: bool = False
    """Train networks of a few neurons, to check that this program works."""
    run_dir: Path = Path("runs/time-to-quality")
    """Folder for the new runs; it must not exist."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    json: Path | None = None
    """File to write the figures to."""


def train_all(config: QualityConfig) -> Iterator[Path]:
    """Train runs that are scored about twenty times; yields the folder of each."""
    if config.textbook:
        yield _train_textbook(config)
    ours: list[tuple[str, Literal["mlp", "conv"]]] = [("r3gan", "mlp"), ("bce", "mlp")]
    if config.conv:
        ours.append(("r3gan", "conv"))
    sizes = TINY if config.tiny else NetworkConfig()
    for recipe, network in ours:
        folder = config.run_dir / f"{recipe}-{network}"
        settings = TrainConfig(
            data=data_for(config.dataset, config.data_dir, tiny=config.tiny),
            network=replace(sizes, network=network),
            recipe=usual_recipe(recipe, network),
            iterations=config.iterations,
            device=config.device,
            score_every=max(1, config.iterations // 20),
        )
        train(settings, folder)
        yield folder


def _train_textbook(config: QualityConfig) -> Path:
    folder = config.run_dir / "textbook"
    epochs = max(1, round(config.iterations * 64 / 60_000))
    train_and_score(
        TextbookConfig(
            folder,
            config.dataset,
            config.data_dir,
            epochs,
            score_epochs=max(1, epochs // 20),
            device=config.device,
        )
    )
    return folder


def seconds_until(curve: Curve, fcd: float) -> float | None:
    """Seconds of training until a scored snapshot is below `fcd`; None if that never happens."""
    for minutes, scores in zip(curve.minutes, curve.scores, strict=True):
        if scores["fcd"] < fcd:
            return 60 * minutes
    return None


def compare(config: QualityConfig) -> dict[str, Any]:
    """Measure everything; the figures as JSON values, written after each run."""
    rows: dict[str, dict[str, float | None]] = {}
    figures = {
        "machine": describe_machine(device_named(config.device)),
        "seconds_until_fcd": rows,
    }
    for run in config.runs or train_all(config):
        curve = read_curve(run)
        name = f"{curve.dataset}, {curve.recipe}, {curve.name}"
        rows[name] = {f"{fcd:g}": seconds_until(curve, fcd) for fcd in config.fcd}
        write_figures(config.json, figures)
    return figures


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    rows = figures["seconds_until_fcd"]
    width = max(map(len, rows))
    values = next(iter(rows.values()))
    lines = [f"{'seconds until FCD <':{width}}" + "".join(f"{value:>8}" for value in values)]
    for name, row in rows.items():
        cells = "".join(f"{'-' if s is None else format(s, '.0f'):>8}" for s in row.values())
        lines.append(f"{name:{width}}{cells}")
    return "\n".join(lines)


def main() -> None:
    """Train unless runs are given, and print; with --json, also write a file."""
    config = tyro.cli(
        QualityConfig, prog="python -m benchmarks.time_to_quality", description=__doc__
    )
    print(table(compare(config)))


if __name__ == "__main__":
    main()
