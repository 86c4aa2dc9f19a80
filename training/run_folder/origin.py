"""Where a run comes from: its settings, data, versions and commit."""

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from inference.writing.files import atomic_write
from training.config import ConfigError, TrainConfig, from_dict, to_dict

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


def write_config(
    run_dir: Path, config: TrainConfig, provenance: dict[str, Any], **facts: Any
) -> None:
    """Write config.json; facts: of this run alone, which its checkpoints need not repeat."""
    content = {"config": to_dict(config), **provenance, **facts}
    with atomic_write(run_dir / "config.json") as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def options(config: TrainConfig) -> dict[str, str | int | float | bool | None]:
    """Every setting in one level, named as its option without the dashes before it."""
    flat: dict[str, Any] = {}
    for name, value in to_dict(config).items():
        flat |= value if isinstance(value, dict) else {name: value}
    return {
        name.replace("_", "-"): " ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in flat.items()
    }


def read_config(run_dir: Path) -> TrainConfig:
    """The settings in config.json.

    Raises:
        ConfigError: where there are none, or not ours.
    """
    path = run_dir / "config.json"
    try:
        config: TrainConfig = from_dict(TrainConfig, json.loads(path.read_text("utf-8"))["config"])
    except OSError as error:
        raise ConfigError(f"{run_dir} holds no run: {path.name}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ConfigError(f"{path} is damaged or of another version: {error}") from None
    return config


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
