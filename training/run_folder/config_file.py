"""config.json: a run's settings, and facts about the run."""

import json
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from inference.writing.files import atomic_write
from training.config import ConfigError, TrainConfig
from training.run_folder.folder import RunFolder


def write_config(
    folder: RunFolder, config: TrainConfig, provenance: dict[str, Any], **facts: Any
) -> None:
    """Write config.json.  facts: facts about the run that its snapshots do not repeat."""
    _write(folder, {"config": to_dict(config), **provenance, **facts})


def add_facts(folder: RunFolder, **facts: Any) -> None:
    """Add facts to config.json, or replace facts in it."""
    _write(folder, json.loads(folder.config.read_text("utf-8")) | facts)


def read_seconds(folder: RunFolder) -> dict[Any, float]:
    """The seconds that a run has spent in each phase; empty before the first save."""
    try:
        seconds: dict[Any, float] = json.loads(folder.config.read_text("utf-8"))["seconds"]
    except (OSError, ValueError, KeyError):
        return {}
    return seconds


def _write(folder: RunFolder, content: dict[str, Any]) -> None:
    with atomic_write(folder.config) as file:
        file.write((json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_config(run_dir: Path) -> TrainConfig:
    """The settings in config.json.

    Raises:
        ConfigError: if the file is missing, damaged or of another version.
    """
    path = RunFolder(run_dir).config
    try:
        config: TrainConfig = from_dict(TrainConfig, json.loads(path.read_text("utf-8"))["config"])
    except OSError as error:
        raise ConfigError(f"{run_dir} holds no run: {path.name}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ConfigError(f"{path} is damaged or of another version: {error}") from None
    return config


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON values."""
    values: dict[str, Any] = _jsonable(asdict(config))
    return values


def from_dict(cls: type[Any], values: dict[str, Any]) -> Any:
    """The config that `to_dict` made `values` of; missing keys take their defaults.

    Raises:
        ConfigError: for a key without a field, or a value that the field refuses.
    """
    hints = get_type_hints(cls)
    unknown = values.keys() - hints.keys()
    if unknown:
        raise ConfigError(f"unknown settings {sorted(unknown)} in {cls.__name__}")
    return cls(**{name: _decode(hints[name], value) for name, value in values.items()})


def _decode(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and is_dataclass(kind):
        return from_dict(kind, value)
    if kind is Path:
        return Path(value)
    return tuple(value) if isinstance(value, list) else value


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value
