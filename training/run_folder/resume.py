"""Training states: last.pt and previous.pt, which hold all that an exact resume needs."""

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from training.config import ConfigError, TrainConfig
from training.gan.state import Moments, Snapshot, TrainState
from training.run_folder.config_file import as_config, to_dict
from training.run_folder.folder import RunFolder
from training.run_folder.history import History
from training.run_folder.json_file import typed
from training.run_folder.resume_settings import resumed_config
from training.run_folder.sealed_file import (
    FORMAT_VERSION,
    CheckpointError,
    DamagedError,
    load,
    save,
)

_log = logging.getLogger(__name__)


@dataclass
class Saves:
    """The saved training states of a run.

    last.pt is the newest. previous.pt is the newest older one that was checked, which means that it
    was saved at the end of an epoch with sound scores. It is used if last.pt is damaged, and a run
    that has diverged goes back to it.
    """

    folder: RunFolder
    data_sha256: str
    config: TrainConfig | None = None
    """The settings of the run; each save repeats them, as config.json may be changed by hand."""
    last_checked: bool = False
    """Whether last.pt was checked; the next save then makes it previous.pt."""
    last_epochs: int = 0
    """Number of epochs in the history in last.pt."""
    last_step: int = -1
    """Step of last.pt."""
    previous_epochs: int = 0
    """Number of epochs in the history in previous.pt."""
    _found: tuple[Path, dict[str, Any]] | None = field(default=None, repr=False)
    threads: int | None = None
    """Threads of the process that wrote the save from which the run continues, if known."""

    def write(self, state: TrainState, history: History, *, checked: bool) -> None:
        """Write last.pt."""
        if self.last_checked:
            self.previous_epochs = self.last_epochs
        content = {
            "format_version": FORMAT_VERSION,
            "step": state.step,
            "device": state.noise.device.type,
            "noise": state.noise.get_state(),
            "tensors": state.tensors() | state.update_counts(),
            "history": history.to_dict(),
            "data_sha256": self.data_sha256,
            "checked": checked,
            "previous_epochs": self.previous_epochs,
            "threads": torch.get_num_threads(),
            "settings": None if self.config is None else to_dict(self.config),
        }
        previous = self.folder.previous if self.last_checked else None
        save(content, self.folder.last, keep_as=previous)
        self.last_checked, self.last_epochs = checked, len(history.epochs)
        self.last_step = state.step

    def find(self, override: frozenset[str] = frozenset()) -> None:
        """Read last.pt, or previous.pt if last.pt is damaged or missing, for `resume`.

        A damaged file is renamed, with a warning. A folder may have no training state yet.

        override: names of settings that may differ from those in the save.

        Raises:
            CheckpointError: if neither file can be read, or if they belong to other images or
                networks.
            ConfigError: if another setting differs that a resume must not change.
        """
        there = [path for path in (self.folder.last, self.folder.previous) if path.exists()]
        for path in there:
            content = _load_or_set_aside(path)
            if content is not None:
                self._require_same_images(content, path)
                self._require_same_settings(content, path, override)
                self._found = path, content
                return
        if there or self.folder.metrics.exists():
            reason = "are damaged" if there else "are missing"
            raise CheckpointError(
                f"{self.folder.path} has no training state to continue from, last.pt and "
                f"previous.pt {reason}: its snapshots can still be exported; start a new run"
            )

    def resume(
        self, state: TrainState, seed: int, override: frozenset[str] = frozenset()
    ) -> History:
        """Restore `state` from the training state that `find` finds.

        A run that was killed before its first save starts from the beginning.

        seed: seed of the run, for new noise on another device.
        override: as in `find`. With device in it, the state may be that of another device. The
        random generators of a CPU and of a GPU cannot continue one another, so the noise is new.

        Raises:
            CheckpointError, ConfigError: as `find`.
        """
        if self._found is None:
            self.find(override)
        if self._found is None:
            return History()
        (path, content), self._found = self._found, None
        history = self._restore(content, path, state, seed, "device" in override)
        self.previous_epochs = content["previous_epochs"]
        if path == self.folder.last:
            self.last_checked, self.last_epochs = content["checked"], len(history.epochs)
            self.last_step = state.step
        else:
            self.previous_epochs = len(history.epochs)
            _log.warning("continuing from %s, iteration %d", path, state.step)
        return history

    def go_back(self, state: TrainState, seed: int, divergences: list[str]) -> History:
        """Restore `state` from the newest checked save, with new noise.

        divergences: the messages of all divergences so far, for the history. The new noise depends
        on the seed and their number, so that a later resume is exact too.
        """
        last, previous = self.folder.last, self.folder.previous
        path = previous if previous.exists() and not self.last_checked else last
        history = self._restore(_load_state(path), path, state, seed, other_device=False)
        history.divergences = divergences
        state.noise.manual_seed(_other_seed(seed, len(divergences)))
        return history

    def _restore(
        self, content: dict[str, Any], path: Path, state: TrainState, seed: int, other_device: bool
    ) -> History:
        own, saved = state.tensors(), content["tensors"]
        if wrong := [n for n, t in own.items() if n in saved and saved[n].shape != t.shape] or [
            name
            for name in own
            if name not in saved and name.rpartition(".")[2] not in Moments._fields
        ]:
            raise CheckpointError(
                f"{path} belongs to other networks than config.json, see {wrong[0]}"
            )
        noise, now = content["noise"], state.noise.device.type
        if content["device"] != now:
            if not other_device:
                raise CheckpointError(
                    f"{path} was trained on {content['device']}, this is {now}: add --override "
                    f"device to continue with other noise"
                )
            noise = state.noise.manual_seed(_other_seed(seed, content["step"])).get_state()
        state.restore(Snapshot(content["step"], noise, saved))
        self.threads = content.get("threads")  # the first saves of this format had none
        return History.from_dict(content["history"])

    def _require_same_images(self, content: dict[str, Any], path: Path) -> None:
        if content["data_sha256"] != self.data_sha256:
            raise CheckpointError(
                f"{path} was trained on other images (sha256 {content['data_sha256'][:12]}…, now "
                f"{self.data_sha256[:12]}…): give the run its data back, or start a new one"
            )

    def _require_same_settings(
        self, content: dict[str, Any], path: Path, override: frozenset[str]
    ) -> None:
        """Raise an error if a setting differs from a save and must not change."""
        if self.config is None or not content.get("settings"):  # the first saves had none
            return
        saved = as_config(content["settings"])
        try:
            resumed_config(saved, self.config, override)
        except ConfigError as error:
            if saved.network != self.config.network:
                raise CheckpointError(
                    f"{path} belongs to other networks than config.json: {error}"
                ) from None
            raise ConfigError(
                f"{self.folder.path}: config.json does not fit {path.name}: {error}"
            ) from None


@dataclass(frozen=True)
class _Facts:
    """What a training state holds besides tensors."""

    step: int
    device: Literal["cpu", "cuda"]
    data_sha256: str
    checked: bool
    previous_epochs: int
    history: dict[str, Any]
    threads: int | None = None


def _load_state(path: Path) -> dict[str, Any]:
    """Read a training state.

    Raises:
        CheckpointError: as `load`, and for a generator snapshot.
        DamagedError: as `load`, and for a content that ganpack does not write.
    """
    content = load(path)
    if "tensors" not in content and "network" in content:
        raise CheckpointError(f"{path} is a generator snapshot, not a training state")
    try:
        facts: _Facts = typed(_Facts, content)
        History.from_dict(facts.history)
        noise = torch.Generator(facts.device if torch.cuda.is_available() else "cpu")
        if facts.device == noise.device.type:
            noise.set_state(content["noise"])
        if not all(isinstance(each, Tensor) for each in content["tensors"].values()):
            raise ValueError("it holds something else than tensors")
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise DamagedError(f"{path} cannot be read, it is damaged or not ours: {reason}") from None
    return content


def _load_or_set_aside(path: Path) -> dict[str, Any] | None:
    """Read a training state. A damaged file is renamed, with a warning; the result is None then."""
    try:
        return _load_state(path)
    except DamagedError as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        _log.warning("%s; set aside as %s", error, aside.name)
        return None


def what_is_saved(folder: RunFolder) -> str:
    """A sentence that says what is saved in a run folder; reads the files."""
    for path in (folder.last, folder.previous):
        with suppress(CheckpointError):
            step = load(path)["step"]
            return f"iteration {step} is saved: continue with --resume {folder.quoted}"
    return "nothing of the run is saved"


def _other_seed(seed: int, number: int) -> int:
    """A seed for new noise. It differs from the run's seed and for each number."""
    (word,) = np.random.SeedSequence((seed, number, 1)).generate_state(1, np.uint64)
    return int(word >> np.uint64(1))
