"""config.json: a run's settings, and facts about the run."""

import logging
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from training.config import ConfigError, TrainConfig
from training.run_folder.folder import RunFolder, RunFolderError
from training.run_folder.json_file import read_object, typed, write_object

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """The facts in config.json besides the settings. Missing or damaged facts are empty."""

    dataset: str = "unknown images"
    data_sha256: str = "unknown"
    git_commit: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each phase."""


def write_config(
    folder: RunFolder, config: TrainConfig, provenance: dict[str, Any], **facts: Any
) -> None:
    """Write config.json.  facts: facts about the run that its snapshots do not repeat."""
    write_object(folder.config, {"config": to_dict(config), **provenance, **facts})


def add_facts(folder: RunFolder, **facts: Any) -> None:
    """Add facts to config.json, or replace facts in it; a damaged file is left, with a warning."""
    try:
        content = read_object(folder.config)
    except ValueError as error:
        _log.warning("%s is damaged and stays as it is: %s", folder.config, error)
    else:
        write_object(folder.config, content | facts)


def read_facts(folder: RunFolder) -> Facts:
    """The facts in config.json; a warning names those that are damaged."""
    try:
        content = read_object(folder.config)
    except (OSError, ValueError):
        return Facts()  # `read_config` has said so
    sound, damaged = {}, []
    for name, kind in get_type_hints(Facts).items():
        if name in content:
            try:
                sound[name] = typed(kind, content[name], name)
            except ValueError as error:
                damaged.append(str(error))
    if damaged:
        _log.warning("%s: left out, as damaged: %s", folder.config, "; ".join(damaged)[:500])
    return Facts(**sound)


def read_seconds(folder: RunFolder) -> dict[Any, float]:
    """The seconds that a run has spent in each phase; empty before the first save."""
    return read_facts(folder).seconds


def read_config(run_dir: Path) -> TrainConfig:
    """The settings in config.json. If the file is damaged, those in last.pt, with a warning.

    Raises:
        ConfigError: if there are none, or if they are of another version.
    """
    folder = RunFolder(run_dir)
    path = folder.config
    try:
        content = read_object(path)
        if "config" not in content:
            raise ValueError("it holds no settings")
        config: TrainConfig = as_config(content["config"])
        return config
    except OSError as error:
        problem = f"{path.name}: {error.strerror}"
    except (ValueError, ConfigError) as error:
        problem = f"{path.name} is damaged or of another version: {error}"
    for save in (folder.last, folder.previous):
        settings = _saved_settings(save)
        if settings is not None:
            _log.warning("%s: %s; the settings are those of %s", run_dir, problem, save.name)
            return settings
    if has_only_beginnings(folder) and any(folder.path.iterdir()):
        problem = "it ended before it saved anything: start it again, without --resume"
    raise ConfigError(f"{run_dir} holds no run: {problem}")


def _saved_settings(save: Path) -> TrainConfig | None:
    """The settings in a training state; None if it cannot be read, or is older than this key."""
    if not save.is_file():
        return None
    from training.run_folder.sealed_file import CheckpointError, load  # torch only where needed

    try:
        content = load(save)
        return as_config(content["settings"]) if content.get("settings") else None
    except (CheckpointError, ConfigError):
        return None


def refuse_used(folder: RunFolder) -> None:
    """Raise RunFolderError if a folder for a new run holds anything.

    What a run leaves that was killed before its first save does not count.
    """
    if folder.path.exists() and not folder.path.is_dir():
        raise RunFolderError(f"{folder.path} is no folder: name another one with --run-dir")
    if folder.path.exists() and not has_only_beginnings(folder):
        raise RunFolderError(
            f"{folder.path} is not empty: continue its run with --resume {folder.quoted}"
        )


def has_only_beginnings(folder: RunFolder) -> bool:
    """Whether a folder holds nothing but what a run writes before its first save."""
    if not folder.path.is_dir():
        return False
    files = {folder.lock, folder.extractor, folder.config, folder.real}
    if not folder.holds_only(files, {folder.checkpoints}):
        return False
    try:
        as_config(read_object(folder.config).get("config"))
    except FileNotFoundError:  # it is written first
        return not folder.real.exists()
    except (OSError, ValueError, ConfigError):
        return False
    return True


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON values."""
    values: dict[str, Any] = _jsonable(asdict(config))
    return values


def as_config(values: Any) -> TrainConfig:
    """The settings that `to_dict` made `values` of.

    Raises:
        ConfigError: for an unknown setting, or a value that a setting refuses.
    """
    read: TrainConfig = from_dict(TrainConfig, values)
    data = values.get("data", {})
    if "held_out" not in data:  # runs from before this setting trained on all images
        read = replace(read, data=replace(read.data, held_out=0.0))
    return read


def from_dict(cls: type[Any], values: Any) -> Any:
    """The config that `to_dict` made `values` of; missing keys take their defaults.

    Raises:
        ConfigError: for a key without a field, or a value that the field refuses.
    """
    try:
        _refuse_unknown(cls, values)
        return typed(cls, values)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _refuse_unknown(cls: type[Any], values: Any) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"the settings are no {cls.__name__}")
    hints = get_type_hints(cls)
    if unknown := sorted(values.keys() - hints.keys()):
        raise ConfigError(f"unknown settings {str(unknown)[:200]} in {cls.__name__}")
    for name, value in values.items():
        if is_dataclass(hints[name]):
            _refuse_unknown(hints[name], value)


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value
