"""Where a run comes from: its data, versions and commit."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

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
