"""Images per second of the sampler beside bare onnxruntime and PyTorch, and what bounds them.

python -m benchmarks.sampling

python -m benchmarks.sampling --rounds 9 --json benchmarks/results/sampling.json

Each program ends with uint8 pixels in memory, or on the device if its name says so. The sampler
draws its noise and writes into one array. On CUDA, PyTorch draws its noise too. All other
programs are given their noise. The limit is the faster of the programs that only multiply the
network's matrices. "× largest" compares a program with itself at the largest batch. The file of
figures is written after each part.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from benchmarks.figures import Deadline, device_named, write_figures
from benchmarks.footprint import BASE, first_images, stream, wheel_bytes
from benchmarks.samplers import (
    EAGER,
    LIMIT,
    TF32,
    Generate,
    Subject,
    contestants,
    copies,
    eager_stream,
)
from training.config import NetworkConfig
from training.engine.machine import describe_machine
from training.gan.networks import Generator

_FEWEST_CALLS = 3
_BATCHES = {"cpu": (1, 8, 64, 1024, 8192), "cuda": (1, 8, 64, 1024, 8192, 32768)}
_STREAM = {"cpu": (1_000_000, 1024), "cuda": (10_000_000, 8192)}


@dataclass(frozen=True)
class SamplingConfig:
    """How long to measure, on what."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto: CUDA if there is a GPU."""
    rounds: int = 5
    """Times that each contestant is measured, in turn with the others."""
    seconds: float = 0.3
    """The fewest seconds of a measurement."""
    batches: tuple[int, ...] = ()
    """Images in a call; by default 1 to 8,192, on CUDA to 32,768."""
    threads: int = 1
    """Processor threads of each contestant."""
    latent_dim: int = NetworkConfig.latent_dim
    dims: tuple[int, ...] = NetworkConfig.generator_dims
    image_size: int = 28
    compile: bool = True
    """Measure torch.compile as well, which takes a minute to compile."""
    starts: int = 9
    """How many processes of each kind are started to measure the first image; 0 for none."""
    stream: int | None = None
    """Images to stream while memory is watched: by default a million, on CUDA ten; 0 for none."""
    budget: float | None = None
    """After this many seconds, no other batch size is measured."""
    json: Path | None = None
    """File to write the figures to."""


def measure(config: SamplingConfig) -> dict[str, Any]:
    """Measure everything; the figures as JSON values."""
    device, deadline = device_named(config.device), Deadline(config.budget)
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    shape = (1, config.image_size, config.image_size)
    generator = Generator(config.latent_dim, config.dims, shape).eval()
    figures: dict[str, Any] = {
        "machine": describe_machine(device) | {"onnxruntime": _onnxruntime()},
        "rates": [],
    }
    count, batch_size = _STREAM[device.type]
    count = count if config.stream is None else config.stream
    try:
        with tempfile.TemporaryDirectory() as folder:
            subject = Subject.write(generator, Path(folder), device, config.threads)
            with torch.inference_mode():
                makers = list(contestants(subject, compiled=config.compile))
                figures["limits"] = copies(subject)
                for batch in config.batches or _BATCHES[device.type]:
                    if deadline.left() > 0:
                        figures["rates"] += _rates(config, batch, makers)
                        write_figures(config.json, figures)
                _compare_to_largest(figures["rates"])
                if count and device.type == "cuda":
                    figures["stream_torch_eager"] = eager_stream(subject, count, batch_size)
            if count:
                figures["stream"] = stream(subject.onnx, count, device.type, batch_size)
                write_figures(config.json, figures)
            if config.starts:
                figures["first_image"] = first_images(subject.onnx, config.starts)
    finally:
        torch.set_num_threads(before)
    return figures | {"wheel_bytes": wheel_bytes()}


def table(figures: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{'batch':>5}  {'':38}{'images/s':>10}{'lowest':>10}{'highest':>10}{'× ort':>7}"
        f"{'× eager':>9}{'× limit':>9}{'× largest':>11}{'p50 ms':>10}{'p99 ms':>10}"
        f"{'CPU µs/image':>14}"
    ]
    lines += [
        f"{f['batch']:5}  {f['name']:38}{f['images_per_second']:10.0f}{f['lowest']:10.0f}"
        f"{f['highest']:10.0f}{f['times_onnxruntime']:7.2f}"
        f"{f['times_torch_eager']:9.2f}{f['times_limit']:9.2f}{f['times_largest_batch']:11.2f}"
        f"{f['p50_ms']:10.3f}{f['p99_ms']:10.3f}"
        f"{f['cpu_us_per_image']:14.2f}"
        for f in figures["rates"]
    ]
    lines.append("")
    ours = max(f["highest"] for f in figures["rates"] if f["name"].startswith("sampler"))
    lines += [
        f"limit of {name}: {rate:.0f} images/s; the sampler's best round reaches {ours / rate:.0%}"
        for name, rate in figures["limits"].items()
    ]
    lines += [
        f"import and first image, {name}: {start['ms']:.0f} ms, "
        f"{start['times_onnxruntime']:.2f} × {BASE}, {start['megabytes']:.0f} MB"
        for name, start in figures.get("first_image", {}).items()
    ]
    if "stream" in figures:
        streamed = figures["stream"]
        sizes = streamed["megabytes"]
        lines.append(
            f"{streamed['images']:,} images streamed, {streamed['images_per_second']:.0f}/s: "
            f"{sizes[0]:.1f} MB up to a tenth of them, {sizes[-1]:.1f} up to the last"
        )
    if "stream_torch_eager" in figures:
        lines.append(f"torch eager, streamed: {figures['stream_torch_eager']:.0f}/s")
    lines.append(f"wheel: {figures['wheel_bytes'] / 1000:.0f} kB")
    machine = ", ".join(f"{key} {value}" for key, value in figures["machine"].items())
    return "\n".join([*lines, "", f"medians of rounds in turn; {machine}"])


def main() -> None:
    """Measure, print, and write JSON if asked."""
    config = tyro.cli(SamplingConfig, prog="python -m benchmarks.sampling", description=__doc__)
    figures = measure(config)
    print(table(figures))
    write_figures(config.json, figures)


def _rates(config: SamplingConfig, batch: int, makers: Any) -> Iterator[dict[str, Any]]:
    """The figures of each program at a batch size; the programs run in turn."""
    functions: dict[str, Generate] = {name: make(batch) for name, make in makers}
    for generate in functions.values():
        generate(0)
        generate(batch)
    calls: dict[str, list[list[float]]] = {name: [] for name in functions}
    processor = dict.fromkeys(functions, 0.0)
    for _ in range(config.rounds):
        for name, generate in functions.items():
            begin = time.process_time()
            calls[name].append(_seconds(generate, batch, config.seconds))
            processor[name] += time.process_time() - begin
    rates = {name: [batch * len(c) / sum(c) for c in calls[name]] for name in functions}
    for name, rounds in calls.items():
        products = [
            rates[other]
            for other in functions
            if other.startswith(LIMIT) and (TF32 in other) == (TF32 in name)
        ]
        limits = [max(each) for each in zip(*products, strict=True)]
        ours = rates[name]
        seconds = sorted(s for each in rounds for s in each)
        yield {
            "batch": batch,
            "name": name,
            "images_per_second": statistics.median(ours),
            "lowest": min(ours),
            "highest": max(ours),
            "times_onnxruntime": _times(ours, rates[BASE]),
            "times_torch_eager": _times(ours, rates[EAGER]),
            "times_limit": _times(ours, limits),
            "calls": len(seconds),
            "p50_ms": 1e3 * statistics.median(seconds),
            "p99_ms": 1e3 * seconds[int(0.99 * (len(seconds) - 1))],
            "cpu_us_per_image": 1e6 * processor[name] / (batch * len(seconds)),
        }


def _compare_to_largest(figures: list[dict[str, Any]]) -> None:
    """Add the speed of each program relative to its speed at the largest batch."""
    largest = max(figure["batch"] for figure in figures)
    rates = {f["name"]: f["images_per_second"] for f in figures if f["batch"] == largest}
    for figure in figures:
        figure["times_largest_batch"] = figure["images_per_second"] / rates[figure["name"]]


def _times(rates: list[float], others: list[float]) -> float:
    """The median ratio of speeds, round by round: what slows down a round slows down both."""
    return statistics.median(a / b for a, b in zip(rates, others, strict=True))


def _seconds(generate: Generate, batch: int, at_least: float) -> list[float]:
    """Seconds of each call.  at_least: seconds of all calls together."""
    times = [time.perf_counter()]
    while times[-1] - times[0] < at_least or len(times) <= _FEWEST_CALLS:
        generate(batch * len(times))
        times.append(time.perf_counter())
    return [b - a for a, b in pairwise(times)]


def _onnxruntime() -> str:
    """Version and package name of the installed onnxruntime."""
    import onnxruntime

    return f"{onnxruntime.__version__} ({getattr(onnxruntime, 'package_name', 'onnxruntime')})"


if __name__ == "__main__":
    main()
