"""Training states: last.pt and previous.pt, which hold all that an exact resume needs."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.gan.state import Moments, Snapshot, TrainState
from training.run_folder.folder import RunFolder
from training.run_folder.history import History
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
    last_checked: bool = False
    """Whether last.pt was checked; the next save then makes it previous.pt."""
    last_epochs: int = 0
    """Number of epochs in the history in last.pt."""
    last_step: int = -1
    """Step of last.pt."""
    previous_epochs: int = 0
    """Number of epochs in the history in previous.pt."""
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
        }
        previous = self.folder.previous if self.last_checked else None
        save(content, self.folder.last, keep_as=previous)
        self.last_checked, self.last_epochs = checked, len(history.epochs)
        self.last_step = state.step

    def resume(self, state: TrainState, seed: int, *, other_device: bool) -> History:
        """Restore `state` from last.pt, or from previous.pt if last.pt is damaged or missing.

        A damaged file is renamed, with a warning. A run that was killed before its first save
        starts from the beginning.

        seed: seed of the run, for new noise on another device.
        other_device: whether the device may differ from that of the save. The random generators of
        a CPU and of a GPU cannot continue one another, so the noise is new then.

        Raises:
            CheckpointError: if neither file can be read, or if they belong to other images or
                networks.
        """
        there = [path for path in (self.folder.last, self.folder.previous) if path.exists()]
        for path in there:
            content = _load_or_set_aside(path)
            if content is None:
                continue
            history = self._restore(content, path, state, seed, other_device=other_device)
            self.previous_epochs = content["previous_epochs"]
            if path == self.folder.last:
                self.last_checked, self.last_epochs = content["checked"], len(history.epochs)
                self.last_step = state.step
            else:
                self.previous_epochs = len(history.epochs)
                _log.warning("continuing from %s, iteration %d", path, state.step)
            return history
        if there or self.folder.metrics.exists():
            reason = "are damaged" if there else "are missing"
            raise CheckpointError(
                f"{self.folder.path} has no training state to continue from, last.pt and "
                f"previous.pt {reason}: its snapshots can still be exported; start a new run"
            )
        return History()

    def go_back(self, state: TrainState, seed: int, divergences: list[str]) -> History:
        """Restore `state` from the newest checked save, with new noise.

        divergences: the messages of all divergences so far, for the history. The new noise depends
        on the seed and their number, so that a later resume is exact too.
        """
        last, previous = self.folder.last, self.folder.previous
        path = previous if previous.exists() and not self.last_checked else last
        history = self._restore(load(path), path, state, seed, other_device=False)
        history.divergences = divergences
        state.noise.manual_seed(_other_seed(seed, len(divergences)))
        return history

    def _restore(
        self, content: dict[str, Any], path: Path, state: TrainState, seed: int, other_device: bool
    ) -> History:
        if "tensors" not in content:
            raise CheckpointError(f"{path} is a generator snapshot, not a training state")
        if content["data_sha256"] != self.data_sha256:
            raise CheckpointError(
                f"{path} was trained on other images (sha256 {content['data_sha256'][:12]}…, now "
                f"{self.data_sha256[:12]}…): give the run its data back, or start a new one"
            )
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


def _load_or_set_aside(path: Path) -> dict[str, Any] | None:
    """Read a training state. A damaged file is renamed, with a warning; the result is None then."""
    try:
        return load(path)
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
    """A seed for noise that differs from the run's own and from that of other numbers."""
    (word,) = np.random.SeedSequence((seed, number, 1)).generate_state(1, np.uint64)
    return int(word >> np.uint64(1))
