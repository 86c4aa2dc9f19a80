"""Whole runs, with records, saves, grids and scores, compared with a textbook loop.

python -m benchmarks.whole_runs --iterations 5000 20000
"""

import logging
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.engines import TINY, data_for
from benchmarks.figures import device_named, write_figures
from benchmarks.training import seconds_of, textbook_run
from training.config import RECIPES, NetworkConfig, TrainConfig
from training.engine.compiled import set_cache_folder
from training.engine.machine import describe_machine
from training.records.phases import PhaseTimer, in_words
from training.run_folder.config_file import read_config

_WARM_UP = 20
_ROUNDS = 3  # of the textbook loop, before the run and after it
_STEPS = ("steps", "records", "samples", "average", "checkpoints", "saves", "other")
"""The phases that grow with the length of a run, without scores, as the textbook loop has none."""


@dataclass(frozen=True)
class WholeRunsConfig:
    """Which runs to measure."""

    iterations: tuple[int, ...] = (5_000, 20_000)
    """Lengths of the runs."""
    textbook_iterations: int = 200
    """Iterations of the textbook loop in each round, before and after the run."""
    recipe: Literal["bce", "r3gan", "hinge", "textbook"] = "bce"
    engine: Literal["auto", "plain", "compiled", "graph"] = "auto"
    device: Literal["auto", "cuda", "cpu"] = "auto"
    tiny: bool = False
    """Train networks of a few neurons, to check that this program works. The textbook loop keeps
    its sizes."""
    dataset: Literal["mnist", "fashion-mnist", "digits"] = "mnist"
    data_dir: Path = Path("data")
    json: Path | None = None
    """File to write the figures to."""


def measure(config: WholeRunsConfig, iterations: int) -> dict[str, Any]:
    """The figures of one run, as JSON values."""
    from training.train import train

    set_cache_folder()  # before the textbook's optimizer imports the compiler
    device = device_named(config.device)
    textbook = textbook_run(config.dataset, config.data_dir, device)
    textbook(_WARM_UP)

    def textbook_rates() -> list[float]:
        count = config.textbook_iterations
        return [count / seconds_of(lambda: textbook(count), device) for _ in range(_ROUNDS)]

    settings = TrainConfig(
        data=data_for(config.dataset, config.data_dir, tiny=config.tiny),
        network=TINY if config.tiny else NetworkConfig(),
        recipe=replace(RECIPES[config.recipe], batch_size=64),
        iterations=iterations,
        device=config.device,
        engine=config.engine,
    )
    rates, timer = textbook_rates(), PhaseTimer()
    with tempfile.TemporaryDirectory() as folder:
        train(settings, Path(folder) / "run", timer=timer)
        engine = read_config(Path(folder) / "run").engine
    seconds = timer.seconds()
    rates += textbook_rates()
    base = statistics.median(rates)
    stepping = sum(seconds.get(name, 0.0) for name in _STEPS)  # type: ignore[call-overload]
    return {
        "iterations": iterations,
        "engine": engine,
        "seconds": seconds,
        "textbook_iterations_per_second": rates,
        "times_textbook": iterations / stepping / base,
        "times_textbook_with_start_and_scores": iterations / sum(seconds.values()) / base,
    }


def line(figures: dict[str, Any]) -> str:
    """The figures of a run as text."""
    base = statistics.median(figures["textbook_iterations_per_second"])
    return (
        f"{figures['iterations']:,} iterations, {figures['engine']}: "
        f"{figures['times_textbook']:.2f} x the textbook loop ({base:.1f} it/s) with records, "
        f"grids and saves, {figures['times_textbook_with_start_and_scores']:.2f} x with start and "
        f"scores; {in_words(figures['seconds'])}"
    )


def main() -> None:
    """Measure and print; with --json, also write a file."""
    config = tyro.cli(WholeRunsConfig, prog="python -m benchmarks.whole_runs", description=__doc__)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    figures: dict[str, Any] = {"machine": describe_machine(device_named(config.device))}
    figures["runs"] = []
    for iterations in config.iterations:
        figures["runs"].append(measure(config, iterations))
        print(line(figures["runs"][-1]), flush=True)
        write_figures(config.json, figures)


if __name__ == "__main__":
    main()
