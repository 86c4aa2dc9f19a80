"""Where a run comes from: its data, versions and commit, and the machine it ran on."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import inference
from training.config import TrainConfig

NO_METADATA = "no package metadata"


def describe(config: TrainConfig, data_sha256: str) -> dict[str, Any]:
    """The origin of a run, as each generator snapshot repeats it."""
    return {
        "dataset": Path(config.data.dataset).name,
        "data_sha256": data_sha256,
        "recipe": config.recipe.recipe,
        "seed": config.seed,
        "versions": {"python": platform.python_version()}
        | package_versions("torch", "torchvision", "numpy"),
        "git_commit": _git_commit(),
    }


def package_versions(*names: str) -> dict[str, str]:
    """The version of each package by its name, and of ganpack.

    A checkout that is not installed has no package metadata, so ganpack's version is read from its
    code. Another package without metadata is listed as `NO_METADATA`.
    """
    return {"ganpack": inference.__version__} | {name: _version(name) for name in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return NO_METADATA


def _git_commit() -> str | None:
    """The commit of this checkout, followed by "+" if files were changed; None outside git."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit or None


def core_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(device: torch.device) -> dict[str, str]:
    """Name and version of what the run computes with: processor, cores, GPU, libraries."""
    description = {
        "processor": _processor(),
        "cores": str(core_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    if device.type == "cuda":
        description |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda),
        }
    return description


def _processor() -> str:
    """The processor's name, and which of the instructions it has that matter here."""
    capabilities = torch.cpu.get_capabilities()
    name = str(capabilities.get("cpu_name") or platform.processor() or platform.machine())
    wide = [each for each in ("avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(each)]
    return f"{name} ({', '.join(wide)})" if wide else name
