"""The commands of `benchmarks.gpu_check`, the most important first."""

import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.figures import device_named
from inference.runtime.cuda import require_cuda
from inference.runtime.driver import ProviderError
from inference.runtime.session import runtime


@dataclass(frozen=True)
class CheckConfig:
    """What to measure, and for how long."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """cpu: run every part with tiny networks."""
    budget: float = 330.0
    """Seconds for all parts together. Time that a part does not use goes to the later parts."""
    parts: tuple[str, ...] = ()
    """Names of the parts to run; by default all. The most important part runs first."""
    data_dir: Path = Path("data")
    """Folder with MNIST. Without MNIST, the digits that need no download are used."""
    json: Path = Path("benchmarks/results/gpu-check.json")
    """File to write the figures to; rewritten after each part."""


@dataclass(frozen=True)
class Part:
    """A command of the check."""

    name: str
    share: float
    """Weight of this part when the time is divided."""
    arguments: list[str]
    """Arguments of Python. Placeholders: {json} and {folder} are places to write to. {most}, {half}
    and {stretch} are seconds: until nothing new begins, for each of two runs, for a measurement."""
    skip: str | None = None
    """The reason why this part cannot run here."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables for this part alone."""

    def filled(self, seconds: float, folder: Path) -> list[str]:
        """The arguments with the placeholders filled in."""
        values = {
            "json": folder / f"{self.name}.json",
            "folder": folder / self.name,
            "most": round(0.7 * seconds, 1),
            "half": round(max(3.0, seconds / 2 - 6), 1),
            "stretch": round(min(1.5, seconds / 60), 3),
        }
        return [argument.format_map(values) for argument in self.arguments]


def parts(config: CheckConfig) -> list[Part]:
    """The parts that were asked for, the most important first."""
    found = _gpu_parts(config) if device_named(config.device).type == "cuda" else _tiny(config)
    unknown = set(config.parts) - {part.name for part in found}
    if unknown:
        names = ", ".join(part.name for part in found)
        raise SystemExit(
            f"error: no part is called {', '.join(sorted(unknown))}: there are {names}"
        )
    return [part for part in found if not config.parts or part.name in config.parts]


def _gpu_parts(config: CheckConfig) -> list[Part]:
    def part(name: str, share: float, command: str, skip: str | None = None) -> Part:
        return Part(name, share, ["-m", *command.split(), *_data(config, name)], skip)

    to = "--device cuda --json {json}"
    engines = f"benchmarks.engines {to} --budget {{most}} --seconds {{stretch}}"
    return [
        *_tests(),
        part("engines", 75, engines),
        part(
            "sampling", 60,
            f"benchmarks.sampling {to} --rounds 3 --seconds 0.08 --starts 3 "
            f"--budget {{most}}", _no_cuda_sampling(),
        ),
        part("exercise", 120, f"benchmarks.exercise {to} --seconds {{half}}"),
        part("exports", 30, f"benchmarks.exports {to} --iterations 300"),
        part(
            "quality", 40,
            f"benchmarks.time_to_quality {to} --no-textbook --run-dir {{folder}} --iterations 9380",
        ),
        part("convolutions", 30, f"{engines} --network conv --batch-size 128 --recipes r3gan"),
        part("textbook", 20, f"benchmarks.training {to} {_TEXTBOOK} --iterations 100"),
    ]  # fmt: skip


def _tiny(config: CheckConfig) -> list[Part]:
    """The same parts on the CPU with networks of a few neurons, to check this program."""

    def part(name: str, share: float, command: str) -> Part:
        return Part(name, share, ["-m", *command.split(), *_data(config, name)])

    to = "--device cpu --json {json}"
    engines = f"benchmarks.engines {to} --tiny --budget {{most}} --seconds {{stretch}}"
    sampling = "--dims 16 --batches 1 64 --rounds 3 --seconds 0.01 --starts 0 --stream 10_000"
    return [
        Part("tests", 0, [], "it was asked for the CPU"),
        part("engines", 30, engines),
        part("sampling", 10, f"benchmarks.sampling {to} {sampling} --no-compile"),
        # This part is the first to score, so it trains the digits' classifier as well.
        part(
            "exercise", 50,
            f"benchmarks.exercise {to} --tiny --recipes r3gan --iterations 500 --seconds {{most}}",
        ),
        part("exports", 25, f"benchmarks.exports {to} --tiny --iterations 40"),
        part(
            "quality", 25,
            f"benchmarks.time_to_quality {to} --tiny --no-textbook --run-dir {{folder}} "
            f"--iterations 40",
        ),
        part(
            "convolutions", 25, f"{engines} --network conv --batch-size 16 --recipes r3gan"
        ),
        part("textbook", 15, f"benchmarks.training {to} --tiny {_TEXTBOOK} --iterations 5"),
    ]  # fmt: skip


_TEXTBOOK = "--recipes bce --precisions medium --engines plain --rounds 1"


def _tests() -> list[Part]:
    """The GPU tests. Those of sampling are alone, since they watch the memory of the device.

    With pytest-xdist, the others run in several processes, since most wait for a compiler.
    """
    command, skip = ["-m", "pytest", "-m", "gpu", "-q"], _no("pytest")
    others, environment = [*command, "tests", "--ignore=tests/inference"], dict[str, str]()
    if importlib.util.find_spec("xdist"):
        processes = max(1, min(8, (os.cpu_count() or 1) // 2))
        # The plugin pytest-benchmark, if it is there, would warn of the processes and so fail.
        others += ["-n", str(processes), "-p", "no:benchmark"]
        environment = {"OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "2"}
    return [
        Part("tests", 60, [*command, "tests/inference"], skip),
        Part("training-tests", 60, others, skip, environment),
    ]


def _data(config: CheckConfig, part: str) -> list[str]:
    """Options for MNIST if it is there, otherwise for the digits that need no download."""
    if part == "sampling":
        return []
    dataset = "mnist" if (config.data_dir / "MNIST").is_dir() else "digits"
    return ["--dataset", dataset, "--data-dir", str(config.data_dir)]


def _no(package: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


def _no_cuda_sampling() -> str | None:
    """The sampler's own message if it cannot run on CUDA here."""
    try:
        require_cuda(runtime(), 0)
    except ProviderError as error:
        return str(error)
    return None
