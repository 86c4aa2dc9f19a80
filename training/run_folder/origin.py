"""Where a run comes from: its data, versions and commit, and the machine it ran on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from training.config import TrainConfig

_PACKAGES = ("ganpack", "torch", "torchvision", "numpy")


def describe(config: TrainConfig, data_sha256: str) -> dict[str, Any]:
    """What each checkpoint says of its origin."""
    return {
        "dataset": Path(config.data.dataset).name,
        "data_sha256": data_sha256,
        "recipe": config.recipe.recipe,
        "seed": config.seed,
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in _PACKAGES},
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    """Of this checkout, with "+" behind it where files were changed; None outside git."""
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return commit or None


def describe_machine(device: torch.device) -> dict[str, str]:
    """Processor, cores, GPU and versions."""
    description = {
        "processor": _processor(),
        "cores": str(
            os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
        ),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    if device.type == "cuda":
        description |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda),
        }
    return description


def _processor() -> str:
    """Its name and the instructions that matter here."""
    capabilities = torch.cpu.get_capabilities()
    name = str(capabilities.get("cpu_name") or platform.processor() or platform.machine())
    wide = [each for each in ("avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(each)]
    return f"{name} ({', '.join(wide)})" if wide else name
