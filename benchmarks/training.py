"""Iterations per second of a textbook loop and of ganpack's engines, and their limits.

python -m benchmarks.training

python -m benchmarks.training --rounds 9 --json benchmarks/results/training.json
"""

import io
import statistics
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from benchmarks.engines import TINY, engines_of, make_engine
from benchmarks.figures import device_named, write_figures
from benchmarks.textbook import textbook_networks, train_textbook
from training.config import RECIPES, DataConfig, NetworkConfig, TrainConfig
from training.engine.engine import Engine
from training.engine.machine import describe_machine
from training.engine.ways import Kind

Precision = Literal["highest", "high", "medium"]

_WARM_UP = 20  # iterations
_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.addmm.default)


@dataclass(frozen=True)
class BenchmarkConfig:
    """How long to measure, on what."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto: CUDA if there is a GPU."""
    rounds: int = 5
    """How often each loop is measured, in turn with the others."""
    iterations: int | None = None
    """Iterations in a round; by default 100 on the CPU, 2,000 on a GPU (textbook loop: 200)."""
    engines: tuple[Kind, ...] = ()
    """ganpack's engines to measure; by default all engines of the device."""
    recipes: tuple[Literal["bce", "r3gan"], ...] = ("bce", "r3gan")
    precisions: tuple[Precision, ...] = ("highest", "medium")
    tiny: bool = False
    """Train networks of a few neurons, to check that this program works. The textbook loop keeps
    its sizes."""
    network: Literal["mlp", "conv"] = "mlp"
    """The network of ganpack; the textbook loop has the fully connected one."""
    dataset: Literal["mnist", "fashion-mnist", "digits"] = "mnist"
    data_dir: Path = Path("data")
    json: Path | None = None
    """File to write the figures to."""


@dataclass(frozen=True)
class Contestant:
    """A training loop that takes more iterations when it is called."""

    name: str
    run: Callable[[int], Any]
    iterations: int


def measure(config: BenchmarkConfig) -> dict[str, Any]:
    """Measure everything; the figures as JSON values."""
    device = device_named(config.device)
    count = config.iterations or (2000 if device.type == "cuda" else 100)
    textbook = textbook_run(config.dataset, config.data_dir, device)
    contestants = [Contestant("textbook", textbook, min(count, 200))]
    limits = {}
    for recipe in config.recipes:
        for precision in config.precisions:
            for kind in config.engines or engines_of(device):
                engine, name = _engine(config, device, recipe, precision, kind)
                if engine.kind == kind:
                    contestants.append(Contestant(f"{recipe}, {name}", engine.run, count))
            if config.network == "mlp":  # most work of convolutions is in no matrix product
                plain, _ = _engine(config, device, recipe, precision, "plain")
                limits[f"{recipe}, {precision}"] = _limits(plain, device)
    for contestant in contestants:
        contestant.run(_WARM_UP)
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for _ in range(config.rounds):
        for contestant in contestants:
            seconds = seconds_of(lambda c=contestant: c.run(c.iterations), device)  # type: ignore[misc]
            rates[contestant.name].append(contestant.iterations / seconds)
    return {
        "machine": describe_machine(device),
        "dataset": config.dataset,
        "network": config.network,
        "iterations": {contestant.name: contestant.iterations for contestant in contestants},
        "iterations_per_second": rates,
        "limits_iterations_per_second": limits,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    rates = figures["iterations_per_second"]
    base = statistics.median(rates["textbook"])
    lines = [f"{'':34}{'it/s':>10}{'lowest':>10}{'highest':>10}{'× textbook':>12}"]
    for name, values in rates.items():
        median = statistics.median(values)
        lines.append(
            f"{name:34}{median:10.1f}{min(values):10.1f}{max(values):10.1f}{median / base:12.2f}"
        )
    lines.append("")
    lines += [
        f"limit of {name}: {what} {rate:.0f} it/s, {rate / base:.1f} × textbook"
        for name, limits in figures["limits_iterations_per_second"].items()
        for what, rate in limits.items()
    ]
    machine = ", ".join(f"{key} {value}" for key, value in figures["machine"].items())
    return "\n".join([*lines, "", f"medians of {len(rates['textbook'])} rounds in turn; {machine}"])


def main() -> None:
    """Measure and print; with --json, also write a file."""
    config = tyro.cli(BenchmarkConfig, prog="python -m benchmarks.training", description=__doc__)
    figures = measure(config)
    print(table(figures))
    write_figures(config.json, figures)


def textbook_run(dataset: str, data_dir: Path, device: torch.device) -> Callable[[int], Any]:
    """A function that takes more iterations of the textbook loop."""
    generator, discriminator = textbook_networks()
    generator.to(device)
    discriminator.to(device)
    steps = train_textbook(generator, discriminator, dataset, data_dir, epochs=10**6)

    def run(count: int) -> None:
        with redirect_stdout(io.StringIO()):  # a terminal would be slower
            for _ in islice(steps, count):
                pass

    return run


def _engine(
    config: BenchmarkConfig, device: torch.device, recipe: str, precision: Precision, kind: Kind
) -> tuple[Engine, str]:
    # All loops have the textbook's batch size, and bce has no penalties, like the textbook's.
    same = {"batch_size": 64} | ({"gamma": 0.0, "gamma_end": 0.0} if recipe == "bce" else {})
    settings = TrainConfig(
        data=DataConfig(config.dataset, config.data_dir),
        network=replace(TINY if config.tiny else NetworkConfig(), network=config.network),
        recipe=replace(RECIPES[recipe], **same),  # type: ignore[arg-type]
        matmul_precision=precision,
        engine=kind,
    )
    return make_engine(settings, device), f"{precision}, {kind}"


def products(engine: Engine) -> list[tuple[Any, Any]]:
    """The shape, strides and type of both factors, for each matrix product in a step."""
    return [
        tuple(node.meta["tensor_meta"] for node in product.all_input_nodes[-2:])
        for product in engine.traced().graph.graph.nodes
        if product.op == "call_function" and product.target in _PRODUCTS
    ]


def _limits(engine: Engine, device: torch.device) -> dict[str, float]:
    """A limit that no engine can beat: the rate of a step's matrix products alone."""
    operands = [tuple(_like(meta, device) for meta in pair) for pair in products(engine)]

    def multiply(times: int) -> None:
        for a, b in operands * times:
            torch.mm(a, b)

    multiply(1)
    with engine.setting():
        seconds = min(seconds_of(lambda: multiply(20), device) for _ in range(5))
    limits = {"matrix products alone": 20 / seconds}
    if device.type == "cuda":
        limits["as many empty kernels in a graph"] = _empty_kernels(engine)
    return limits


def _empty_kernels(engine: Engine) -> float:
    """Steps per second of a CUDA graph with as many empty kernels as a plain step has."""
    from torch.profiler import ProfilerActivity, profile

    engine.run(3)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        engine.run(1)
    kernels = sum(event.count for event in profiler.key_averages())
    nothing = torch.zeros(1, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(kernels):
            nothing.add_(1)

    def replay(times: int) -> None:
        for _ in range(times):
            graph.replay()

    replay(1)
    return 100 / min(seconds_of(lambda: replay(100), nothing.device) for _ in range(5))


def _like(meta: Any, device: torch.device) -> torch.Tensor:
    size = 1 + sum((n - 1) * stride for n, stride in zip(meta.shape, meta.stride, strict=True))
    memory = torch.randn(size, device=device).to(meta.dtype)
    return memory.as_strided(meta.shape, meta.stride)


def seconds_of(action: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call, including the work of the device."""
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
