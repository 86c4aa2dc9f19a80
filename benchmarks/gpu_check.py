"""What wants a GPU, in a few minutes: the GPU tests and every benchmark, a table and a JSON file.

python -m benchmarks.gpu_check

python -m benchmarks.gpu_check --budget 120 --parts engines sampling

python -m benchmarks.gpu_check --device cpu    # tiny networks, to try this program

Installs and downloads nothing. What cannot run here is skipped, and the reason is printed.
"""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from benchmarks.figures import Deadline, device_named, write_figures
from inference.runtime.cuda import require_cuda
from inference.runtime.driver import ProviderError
from inference.runtime.session import runtime
from training.run_folder.origin import describe_machine, package_versions

_LAST_LINES = 20
_SECONDS_TO_STOP = 5.0
_FEWEST_SECONDS = 3.0  # less is not worth starting PyTorch for


@dataclass(frozen=True)
class CheckConfig:
    """What to measure, and for how long."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """cpu goes through every part with tiny networks."""
    budget: float = 330.0
    """Seconds for everything. Parts share them; what one leaves over goes to those after it."""
    parts: tuple[str, ...] = ()
    """Names of the parts to run, in the order of their importance; by default all."""
    data_dir: Path = Path("data")
    """Where MNIST is; without it the digits that need no download are taken."""
    json: Path = Path("benchmarks/results/gpu-check.json")
    """File to write the figures to; rewritten after each part."""


@dataclass(frozen=True)
class Part:
    """A command of the check."""

    name: str
    share: float
    """Its share of the budget, in parts of what all have."""
    arguments: Callable[[float], list[str]]
    """Arguments of Python for a number of seconds; "JSON" is the file to write figures to."""
    skip: str | None = None
    """Why it cannot run here."""


def parts(config: CheckConfig) -> list[Part]:
    """The parts that were asked for, the most important first."""
    cuda = device_named(config.device).type == "cuda"
    no_gpu = None if torch.cuda.is_available() else "PyTorch finds no GPU"
    if config.device == "cpu":
        no_gpu = "it was asked for the CPU"
    no_sampling = _no_cuda_sampling() if cuda else None
    dataset = "mnist" if (config.data_dir / "MNIST").is_dir() else "digits"
    data = ["--dataset", dataset, "--data-dir", str(config.data_dir)]
    device = ["--device", "cuda" if cuda else "cpu"]
    figures = [*device, "--json", "JSON"]
    tiny = [] if cuda else ["--tiny"]
    few = ["--iterations", "40"] if not cuda else []
    engines = ["-m", "benchmarks.engines", *figures, *data, *tiny]
    sampling = ["-m", "benchmarks.sampling", *figures]
    sampling += ["--starts", "3"] if cuda else ["--dims", "16", "--batches", "1", "64"]
    if not cuda:
        sampling += ["--starts", "0", "--stream", "10_000", "--no-compile"]
    quality = ["-m", "benchmarks.time_to_quality", *figures, *data, *tiny, "--no-textbook"]
    exercise = ["-m", "benchmarks.exercise", *figures, *data, *tiny]
    exports = ["-m", "benchmarks.exports", *figures, *data, *tiny]
    training = ["-m", "benchmarks.training", *figures, *data, *tiny, "--recipes", "bce"]
    training += ["--precisions", "medium", "--engines", "plain", "--rounds", "1"]
    found = [
        Part("tests", 60, lambda s: ["-m", "pytest", "-m", "gpu", "-q"], no_gpu or _no("pytest")),
        Part("engines", 75, lambda s: [*engines, "--budget", f"{0.7 * s}", *_brief(s)]),
        Part("sampling", 60, lambda s: [*sampling, *_rounds(s)], no_sampling),
        Part("exercise", 120 if cuda else 30, lambda s: [*exercise, "--seconds", f"{0.4 * s}"]),
        Part("exports", 30, lambda s: [*exports, *few]),
        Part("quality", 40, lambda s: [*quality, "--run-dir", "FOLDER", *(few or _LENGTH)]),
        Part(
            "convolutions", 30,
            lambda s: [
                *engines, "--network", "conv", "--batch-size", "128", "--recipes", "r3gan",
                "--budget", f"{0.7 * s}", *_brief(s),
            ],
        ),
        Part("textbook", 20, lambda s: [*training, "--iterations", "100" if cuda else "5"]),
    ]  # fmt: skip
    unknown = set(config.parts) - {part.name for part in found}
    if unknown:
        names = ", ".join(part.name for part in found)
        raise SystemExit(
            f"error: no part is called {', '.join(sorted(unknown))}: there are {names}"
        )
    return [part for part in found if not config.parts or part.name in config.parts]


_LENGTH = ["--iterations", "9380"]


def _brief(seconds: float) -> list[str]:
    """How long to measure each engine."""
    return ["--seconds", f"{min(2.0, seconds / 40):.2f}"]


def _rounds(seconds: float) -> list[str]:
    """How often and how long to measure each way to sample."""
    return ["--rounds", "3", "--seconds", f"{min(0.2, seconds / 300):.3f}"]


def _no(package: str) -> str | None:
    return None if importlib.util.find_spec(package) else f"{package} is not installed"


def _no_cuda_sampling() -> str | None:
    """Why the sampler cannot run on CUDA here, in its own words."""
    try:
        require_cuda(runtime(), 0)
    except ProviderError as error:
        return str(error)
    return None


def run_part(part: Part, seconds: float, folder: Path) -> dict[str, Any]:
    """Run a part for at most so many seconds; what came of it, as JSON values."""
    if part.skip:
        return {"state": "skipped", "reason": part.skip}
    if seconds < _FEWEST_SECONDS:
        return {"state": "skipped", "reason": "the budget is spent"}
    figures = folder / f"{part.name}.json"
    files = {"JSON": str(figures), "FOLDER": str(folder / part.name)}
    arguments = [files.get(argument, argument) for argument in part.arguments(seconds)]
    start = time.monotonic()
    code, lines = _run([sys.executable, *arguments], seconds)
    result: dict[str, Any] = {
        "state": "stopped" if code is None else "failed" if code else "done",
        "seconds": round(time.monotonic() - start, 1),
        "last_lines": lines[-_LAST_LINES:],
    }
    if code is None:
        result["reason"] = f"its {seconds:.0f} s were over"
    elif code:
        result["reason"] = f"exit code {code}"
    with contextlib.suppress(OSError, ValueError):  # there is none, or it was being written
        result["figures"] = json.loads(figures.read_text("utf-8"))
    return result


def _run(command: list[str], seconds: float) -> tuple[int | None, list[str]]:
    """Exit code of a command and the lines that it printed; None if it was stopped in the end."""
    lines: list[str] = []

    def read(output: Any) -> None:
        for line in output:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))

    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        reader = threading.Thread(target=read, args=[process.stdout], daemon=True)
        reader.start()
        code: int | None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        _end(process)
        reader.join(_SECONDS_TO_STOP)
    return code, lines


def _end(process: "subprocess.Popen[str]") -> None:
    """End a part with all that it has started; nothing may go on beside the next one."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_STOP)


def table(results: dict[str, dict[str, Any]]) -> str:
    """What came of each part, a line each."""
    return "\n".join(
        f"{name:14}{result.get('seconds', 0.0):7.1f} s  {result['state']}"
        + (f": {result['reason']}" if "reason" in result else "")
        for name, result in results.items()
    )


def main() -> int:
    """Run the parts; 1 if one failed."""
    config = tyro.cli(CheckConfig, prog="python -m benchmarks.gpu_check", description=__doc__)
    deadline, todo = Deadline(config.budget), parts(config)
    results: dict[str, dict[str, Any]] = {}
    machine = describe_machine(device_named(config.device))
    machine |= package_versions("onnxruntime", "onnxruntime-gpu", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        while todo:
            part, waiting = todo[0], [each for each in todo if not each.skip]
            share = part.share / max(sum(each.share for each in waiting), part.share)
            print(f"== {part.name}", flush=True)
            results[part.name] = run_part(todo.pop(0), share * deadline.left(), Path(folder))
            content = {"machine": machine, "budget": config.budget, "parts": results}
            write_figures(config.json, content)
    print(f"== {config.json}\n{table(results)}")
    return int(any(result["state"] == "failed" for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
