"""All that wants a GPU, in one command: the GPU tests and every benchmark, a table and a JSON file.

python -m benchmarks.gpu_check

Downloads nothing. What this machine cannot do is skipped, and said to be.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from inference.runtime.cuda import require_cuda
from inference.runtime.driver import ProviderError
from inference.runtime.session import runtime
from training.run_folder.origin import describe_machine

_FULL_SCHEDULE = 187_500  # the exercise's 200 epochs of 60,000 images in batches of 64


@dataclass(frozen=True)
class CheckConfig:
    """Where the data is, and where the figures go."""

    data_dir: Path = Path("data")
    json: Path = Path("benchmarks/results/gpu-check.json")


@dataclass(frozen=True)
class Part:
    """A command of the check."""

    name: str
    arguments: list[str]
    """Of Python; "JSON" stands for a file that it writes its figures to."""
    skip: str | None
    """Why it cannot run here."""


def parts(config: CheckConfig, folder: Path) -> list[Part]:
    """The commands, in order; `folder` is theirs to write to."""
    no_gpu = None if torch.cuda.is_available() else "PyTorch finds no GPU"
    no_pytest = None if importlib.util.find_spec("pytest") else "pytest is not installed"
    no_data = None
    if not (config.data_dir / "MNIST").is_dir():
        no_data = f"no MNIST in {config.data_dir}"
    data = ["--data-dir", str(config.data_dir)]
    run = ["-m", "training.run", *data, "--device", "cuda", "--run-dir"]
    quality = ["-m", "benchmarks.time_to_quality", *data, "--run-dir", str(folder / "quality")]
    return [
        Part("GPU tests", ["-m", "pytest", "-m", "gpu", "-q"], no_gpu or no_pytest),
        Part(
            "what onnxruntime finds",
            ["-m", "inference.run", "--doctor", "--json"],
            no_gpu,
        ),
        Part(
            "iterations per second",
            ["-m", "benchmarks.training", *data, "--json", "JSON"],
            no_gpu or no_data,
        ),
        Part(
            "iterations per second, convolutions",
            [
                *["-m", "benchmarks.training", *data, "--network", "conv", "--rounds", "3"],
                *["--engines", "plain", "graph", "--json", "JSON"],
            ],
            no_gpu or no_data,
        ),
        Part(
            "images per second",
            ["-m", "benchmarks.sampling", "--device", "cuda", "--rounds", "3", "--json", "JSON"],
            no_gpu or _no_cuda_sampling(),
        ),
        Part(
            f"{_FULL_SCHEDULE} iterations of bce, scores and files included",
            [
                *run,
                str(folder / "full"),
                "--iterations",
                str(_FULL_SCHEDULE),
                "--score-every",
                "9380",
            ],
            no_gpu or no_data,
        ),
        Part(
            "seconds until FCD",
            [*quality, "--iterations", "9380", "--conv", "--json", "JSON"],
            no_gpu or no_data,
        ),
    ]


def _no_cuda_sampling() -> str | None:
    """Why the sampler cannot run on CUDA here, in its own words."""
    try:
        require_cuda(runtime(), 0)
    except ProviderError as error:
        return str(error)
    return None


def run_part(part: Part, folder: Path) -> dict[str, Any]:
    """What came of it, as JSON values."""
    if part.skip:
        return {"skipped": part.skip}
    figures = folder / f"{part.name}.json"
    arguments = [str(figures) if a == "JSON" else a for a in part.arguments]
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, flush=True)
    result: dict[str, Any] = {
        "seconds": round(time.monotonic() - start, 1),
        "exit_code": done.returncode,
        "last_lines": done.stdout.splitlines()[-12:],
    }
    if figures.exists():
        result["figures"] = json.loads(figures.read_text("utf-8"))
    return result


def main() -> int:
    """Run all parts; 1 if one failed."""
    config = tyro.cli(CheckConfig, prog="python -m benchmarks.gpu_check", description=__doc__)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts(config, Path(folder)):
            print(f"== {part.name}", flush=True)
            results[part.name] = run_part(part, Path(folder))
    config.json.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": describe_machine(device), "parts": results}
    config.json.write_text(json.dumps(content, indent=2) + "\n")
    print(f"== {config.json}")
    failed = False
    for name, result in results.items():
        skipped = result.get("skipped")
        failed |= bool(result.get("exit_code"))
        state = f"skipped: {skipped}" if skipped else f"exit code {result['exit_code']}"
        print(f"{name:60} {result.get('seconds', '-'):>6}  {state}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
