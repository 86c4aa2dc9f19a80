"""Iterations per second, and the kernels of a step, for each engine of this machine.

python -m benchmarks.engines

python -m benchmarks.engines --network conv --batch-size 128 --json conv.json
"""

import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import tyro
from torch.profiler import ProfilerActivity, profile

from benchmarks.figures import Deadline, device_named, write_figures
from training.config import RECIPES, DataConfig, NetworkConfig, RecipeConfig, TrainConfig
from training.data.batches import Batches
from training.data.datasets import load_images
from training.engine.choice import create_engine
from training.engine.engine import Engine
from training.engine.machine import describe_machine
from training.engine.ways import Kind
from training.gan.state import TrainState

KINDS: tuple[Kind, ...] = get_args(Kind)
TINY = NetworkConfig(latent_dim=10, generator_dims=(16, 32), discriminator_dims=(16,), conv_width=4)
_PROFILED_STEPS = 32
_LARGEST = 10
_STRETCHES = 5


@dataclass(frozen=True)
class EnginesConfig:
    """Which engines to measure, on what, and for how long."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto: CUDA if there is a GPU."""
    recipes: tuple[str, ...] = ("r3gan", "bce")
    engines: tuple[Kind, ...] = ()
    """By default all engines of the device."""
    network: Literal["mlp", "conv"] = "mlp"
    batch_size: int = 64
    tiny: bool = False
    """Train networks of a few neurons, to check that this program works."""
    dataset: Literal["mnist", "fashion-mnist", "digits"] = "mnist"
    data_dir: Path = Path("data")
    seconds: float = 2.0
    """Seconds to measure each engine for, once it is ready."""
    budget: float | None = None
    """After this many seconds, no other engine is measured."""
    json: Path | None = None
    """File to write the figures to; rewritten after each engine."""


def data_for(dataset: str, data_dir: Path, *, tiny: bool) -> DataConfig:
    """A data set; tiny: of 8×8 images, whose classifier trains in seconds."""
    return DataConfig(dataset, data_dir, image_size=8 if tiny else DataConfig.image_size)


def engines_of(device: torch.device) -> tuple[Kind, ...]:
    """The engines of a device, the plain one last."""
    kinds = [
        kind for kind in KINDS if kind != "plain" and (kind != "graph" or device.type != "cpu")
    ]
    return *kinds, "plain"


def make_engine(settings: TrainConfig, device: torch.device) -> Engine:
    """An engine with a new state. If the wanted engine does not work here, it is another one."""
    images = load_images(settings.data).to(device)
    state = TrainState.create(
        settings.network, settings.recipe, images.image_shape, device, settings.seed
    )
    batches = Batches(images, settings.recipe.batch_size, settings.seed)
    return create_engine(state, batches, settings, total=0)


def measure(config: EnginesConfig) -> dict[str, Any]:
    """Measure everything; the figures as JSON values."""
    device, deadline = device_named(config.device), Deadline(config.budget)
    rows: list[dict[str, Any]] = []
    figures = {
        "machine": describe_machine(device),
        "network": config.network,
        "batch_size": config.batch_size,
        "engines": rows,
    }
    for kind, recipe in product(config.engines or engines_of(device), config.recipes):
        row = {"engine": kind, "recipe": recipe}
        if deadline.left() <= 0:
            row |= {"skipped": f"the budget of {config.budget:.0f} s is used up"}
        else:
            row |= _figures(config, RECIPES[recipe], kind, device)
        print(_line(row), flush=True)
        rows.append(row)
        write_figures(config.json, figures)
    return figures


def kernels(engine: Engine, device: torch.device) -> dict[str, Any]:
    """Profile a step with PyTorch's profiler: kernels on a GPU, operations on a CPU."""
    cuda = device.type == "cuda"
    engine.run(_PROFILED_STEPS)
    activity = ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        engine.run(_PROFILED_STEPS)
    found = [
        (event.key, event.count, getattr(event, f"self_{'device' if cuda else 'cpu'}_time_total"))
        for event in profiler.key_averages()
        if event.device_type.name == device.type.upper()
    ]
    found.sort(key=lambda row: -row[2])
    copies = ("Memcpy", "Memset")
    return {
        "kernels_a_step": round(
            sum(n for name, n, _ in found if not name.startswith(copies)) / _PROFILED_STEPS, 1
        ),
        "busy_us_a_step": round(sum(us for *_, us in found) / _PROFILED_STEPS, 1),
        "largest": [
            {
                "name": name[:120],
                "a_step": round(count / _PROFILED_STEPS, 2),
                "us_a_step": round(us / _PROFILED_STEPS, 2),
            }
            for name, count, us in found[:_LARGEST]
        ],
    }


def _figures(
    config: EnginesConfig, recipe: RecipeConfig, kind: Kind, device: torch.device
) -> dict[str, Any]:
    settings = TrainConfig(
        data=data_for(config.dataset, config.data_dir, tiny=config.tiny),
        network=replace(TINY if config.tiny else NetworkConfig(), network=config.network),
        recipe=replace(recipe, batch_size=config.batch_size),
        engine=kind,
    )
    begin = time.perf_counter()
    with _warnings() as messages:
        engine = make_engine(settings, device)
    if engine.kind != kind:
        return {"skipped": "; ".join(messages) or f"the engine is {engine.kind}"}
    ready = time.perf_counter() - begin
    rates = sorted(_rates(engine, config.seconds))
    return {
        "seconds_until_ready": round(ready, 1),
        "iterations_per_second": round(statistics.median(rates), 1),
        "lowest": round(rates[0], 1),
        "highest": round(rates[-1], 1),
        **kernels(engine, device),
    }


def _rates(engine: Engine, seconds: float) -> list[float]:
    """Iterations per second, measured in several stretches.  seconds: of all stretches together."""
    count, took = 1, 0.0
    while (
        took < seconds / _STRETCHES / 2
    ):  # this finds the number of steps in a stretch, and warms up
        count *= 2
        took = _seconds(engine, count)
    count = max(1, int(count * seconds / _STRETCHES / took))
    return [count / _seconds(engine, count) for _ in range(_STRETCHES)]


def _seconds(engine: Engine, count: int) -> float:
    start = time.perf_counter()
    engine.run(count)  # waits for the device
    return time.perf_counter() - start


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect the warnings of training."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("training")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def _line(row: dict[str, Any]) -> str:
    name = f"{row['recipe']}, {row['engine']}"
    if "skipped" in row:
        return f"{name:20} skipped: {row['skipped']}"
    text = (
        f"{name:20}{row['iterations_per_second']:9.1f} it/s, ready after "
        f"{row['seconds_until_ready']:.1f} s, {row['kernels_a_step']:.0f} kernels and "
        f"{row['busy_us_a_step']:.0f} busy µs a step"
    )
    largest = [
        f"    {k['us_a_step']:8.1f} µs in {k['a_step']:5.1f}  {k['name']}" for k in row["largest"]
    ]
    return "\n".join([text, *largest])


def main() -> None:
    """Measure and print; with --json, also write a file."""
    measure(tyro.cli(EnginesConfig, prog="python -m benchmarks.engines", description=__doc__))


if __name__ == "__main__":
    main()
