"""Images per second of the sampler beside bare onnxruntime and PyTorch, and what bounds them.

python -m benchmarks.sampling

python -m benchmarks.sampling --rounds 9 --json benchmarks/results/sampling.json

Each ends with uint8 pixels in memory. The sampler draws its noise and writes into one array; the
others are given their noise. The limit is the quicker of those that multiply the network's matrices
and do nothing else; the last column of ratios is against the same at the largest batch.
"""

import json
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

from benchmarks.footprint import BASE, first_images, stream, wheel_bytes
from benchmarks.samplers import LIMIT, Draw, Subject, contestants, copies
from training.config import NetworkConfig
from training.gan.networks import Generator
from training.run_folder.origin import describe_machine

_FEWEST_CALLS = 3


@dataclass(frozen=True)
class SamplingConfig:
    """How long to measure, on what."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """auto takes CUDA where there is a GPU."""
    rounds: int = 5
    """Times that each contestant is measured, in turn with the others."""
    seconds: float = 0.3
    """Of each measurement, at least."""
    batches: tuple[int, ...] = (1, 8, 64, 1024, 8192)
    threads: int = 1
    """Processor threads of each contestant."""
    latent_dim: int = NetworkConfig.latent_dim
    dims: tuple[int, ...] = NetworkConfig.generator_dims
    image_size: int = 28
    compile: bool = True
    """Measure torch.compile as well, which takes a minute to compile."""
    starts: int = 9
    """Processes that are started to a first image, of each kind; 0 for none."""
    stream: int = 1_000_000
    """Images to stream while memory is watched; 0 for none."""
    json: Path | None = None
    """Where to write the figures to as well."""


def measure(config: SamplingConfig) -> dict[str, Any]:
    """All figures, as JSON values."""
    cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if cuda else "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    shape = (1, config.image_size, config.image_size)
    generator = Generator(config.latent_dim, config.dims, shape).eval()
    figures: dict[str, Any] = {
        "machine": describe_machine(device) | {"onnxruntime": _onnxruntime()},
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            subject = Subject.write(generator, Path(folder), device, config.threads)
            with torch.inference_mode():
                makers = list(contestants(subject, compiled=config.compile))
                figures["rates"] = list(_rates(config, makers))
                figures["limits"] = copies(subject)
            if config.starts:
                figures["first_image"] = first_images(subject.onnx, config.starts)
            if config.stream:
                figures["stream"] = stream(subject.onnx, config.stream)
    finally:
        torch.set_num_threads(before)
    return figures | {"wheel_bytes": wheel_bytes()}


def table(figures: dict[str, Any]) -> str:
    """The figures for a person."""
    lines = [
        f"{'batch':>5}  {'':26}{'images/s':>10}{'lowest':>10}{'highest':>10}{'× ort':>7}"
        f"{'× limit':>9}{'× largest':>11}{'p50 ms':>10}{'p99 ms':>10}{'CPU µs/image':>14}"
    ]
    lines += [
        f"{f['batch']:5}  {f['name']:26}{f['images_per_second']:10.0f}{f['lowest']:10.0f}"
        f"{f['highest']:10.0f}{f['times_onnxruntime']:7.2f}"
        f"{f['times_limit']:9.2f}{f['times_largest_batch']:11.2f}{f['p50_ms']:10.3f}{f['p99_ms']:10.3f}"
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
    lines.append(f"wheel: {figures['wheel_bytes'] / 1000:.0f} kB")
    machine = ", ".join(f"{key} {value}" for key, value in figures["machine"].items())
    return "\n".join([*lines, "", f"medians of rounds in turn; {machine}"])


def main() -> None:
    """Measure, print, and write JSON if asked."""
    config = tyro.cli(SamplingConfig, prog="python -m benchmarks.sampling", description=__doc__)
    figures = measure(config)
    print(table(figures))
    if config.json:
        config.json.parent.mkdir(parents=True, exist_ok=True)
        config.json.write_text(json.dumps(figures, indent=2) + "\n")


def _rates(config: SamplingConfig, makers: Any) -> Iterator[dict[str, Any]]:
    """A figure for each contestant at each batch size, all of them in turn."""
    draws: dict[tuple[int, str], Draw] = {
        (batch, name): make(batch) for batch in config.batches for name, make in makers
    }
    for (batch, _), draw in draws.items():
        draw(0)
        draw(batch)
    calls: dict[tuple[int, str], list[list[float]]] = {key: [] for key in draws}
    processor = dict.fromkeys(draws, 0.0)
    for _ in range(config.rounds):
        for key, draw in draws.items():
            begin = time.process_time()
            calls[key].append(_seconds(draw, key[0], config.seconds))
            processor[key] += time.process_time() - begin
    rates = {key: [key[0] * len(c) / sum(c) for c in calls[key]] for key in draws}
    for (batch, name), rounds in calls.items():
        ours = rates[batch, name]
        products = [rates[batch, other] for other, _ in makers if other.startswith(LIMIT)]
        limits = [max(each) for each in zip(*products, strict=True)]
        seconds = sorted(s for each in rounds for s in each)
        yield {
            "batch": batch,
            "name": name,
            "images_per_second": statistics.median(ours),
            "lowest": min(ours),
            "highest": max(ours),
            "times_onnxruntime": _times(ours, rates[batch, BASE]),
            "times_limit": _times(ours, limits),
            "times_largest_batch": _times(ours, rates[max(config.batches), name]),
            "calls": len(seconds),
            "p50_ms": 1e3 * statistics.median(seconds),
            "p99_ms": 1e3 * seconds[int(0.99 * (len(seconds) - 1))],
            "cpu_us_per_image": 1e6 * processor[batch, name] / (batch * len(seconds)),
        }


def _times(rates: list[float], others: list[float]) -> float:
    """How many times as fast, round by round: what slows down a round slows down both."""
    return statistics.median(a / b for a, b in zip(rates, others, strict=True))


def _seconds(draw: Draw, batch: int, at_least: float) -> list[float]:
    """Of each of the calls that take so long together."""
    times = [time.perf_counter()]
    while times[-1] - times[0] < at_least or len(times) <= _FEWEST_CALLS:
        draw(batch * len(times))
        times.append(time.perf_counter())
    return [b - a for a, b in pairwise(times)]


def _onnxruntime() -> str:
    """Version of whichever of its packages is installed."""
    import onnxruntime

    return f"{onnxruntime.__version__} ({getattr(onnxruntime, 'package_name', 'onnxruntime')})"


if __name__ == "__main__":
    main()
