"""last.pt and previous.pt: all that an exact resume needs."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.gan.state import MOMENTS, Snapshot, TrainState
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
    """The saves of a run.

    last.pt is the newest. previous.pt is the newest before it that was checked: one of sound
    scores, made at the end of an epoch. It serves where last.pt is damaged, and a run that has gone
    wrong goes back to it.
    """

    folder: RunFolder
    data_sha256: str
    last_checked: bool = False
    """Whether last.pt was checked, and is to become previous.pt."""
    last_epochs: int = 0
    """Epochs on record in last.pt."""
    last_step: int = -1
    """Its step."""
    previous_epochs: int = 0
    """Epochs on record in previous.pt."""

    def write(self, state: TrainState, history: History, *, checked: bool) -> None:
        """Write last.pt."""
        if self.last_checked:
            self.previous_epochs = self.last_epochs
        content = {
            "format_version": FORMAT_VERSION,
            "step": state.step,
            "device": state.noise.device.type,
            "noise": state.noise.get_state(),
            "tensors": state.tensors(),
            "history": history.to_dict(),
            "data_sha256": self.data_sha256,
            "checked": checked,
            "previous_epochs": self.previous_epochs,
        }
        previous = self.folder.previous if self.last_checked else None
        save(content, self.folder.last, keep_as=previous)
        self.last_checked, self.last_epochs = checked, len(history.epochs)
        self.last_step = state.step

    def resume(self, state: TrainState, seed: int, *, other_device: bool) -> History:
        """Put `state` to where last.pt left it, or previous.pt if that is damaged or missing.

        A damaged file is named and set aside. A run that was killed before its first save begins.
        seed, other_device: what noise to draw where the device is not the one of the save, and
        whether to allow that, as random generators of two kinds do not go on from one another.

        Raises:
            CheckpointError: if neither can be read, or they are of other images or networks.
        """
        damaged = []
        for path in (self.folder.last, self.folder.previous):
            if not path.exists():
                continue
            try:
                content = load(path)
            except DamagedError as error:
                aside = path.with_name(f"{path.name}.damaged")
                path.replace(aside)
                damaged.append(f"{error}; set aside as {aside.name}")
                _log.warning("%s", damaged[-1])
                continue
            history = self._restore(content, path, state, seed, other_device=other_device)
            self.previous_epochs = content["previous_epochs"]
            if path == self.folder.last:
                self.last_checked, self.last_epochs = content["checked"], len(history.epochs)
                self.last_step = state.step
            else:
                self.previous_epochs = len(history.epochs)
                _log.warning("going on from %s, iteration %d", path, state.step)
            return history
        if damaged or self.folder.metrics.exists():
            reason = "both are damaged" if damaged else "both are missing"
            raise CheckpointError(
                f"{self.folder.path} has neither last.pt nor previous.pt to go on from, {reason}: "
                f"its checkpoints can still be exported; start a new run"
            )
        return History()

    def go_back(self, state: TrainState, seed: int, divergences: list[str]) -> History:
        """Put `state` to where the newest checked save left it, with new noise.

        divergences: all so far, which the history then has: with the seed, their number says which
        noise, so that a resume is exact here as well.
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
            raise CheckpointError(f"{path} is a checkpoint, not what a run goes on from")
        if content["data_sha256"] != self.data_sha256:
            raise CheckpointError(
                f"{path} was trained on other images (sha256 {content['data_sha256'][:12]}…, now "
                f"{self.data_sha256[:12]}…): give the run its data back, or start a new one"
            )
        own, saved = state.tensors(), content["tensors"]
        if wrong := [n for n, t in own.items() if n in saved and saved[n].shape != t.shape] or [
            name for name in own if name not in saved and name.rpartition(".")[2] not in MOMENTS
        ]:
            raise CheckpointError(f"{path} is of other networks than config.json, see {wrong[0]}")
        noise, now = content["noise"], state.noise.device.type
        if content["device"] != now:
            if not other_device:
                raise CheckpointError(
                    f"{path} was trained on {content['device']}, this is {now}: add --override "
                    f"device to go on with other noise"
                )
            noise = state.noise.manual_seed(_other_seed(seed, content["step"])).get_state()
        state.restore(Snapshot(content["step"], noise, saved))
        return History.from_dict(content["history"])


def what_is_saved(folder: RunFolder) -> str:
    """What is saved in a run folder, in words; read from the disk."""
    for path in (folder.last, folder.previous):
        with suppress(CheckpointError):
            step = load(path)["step"]
            return (
                f"iteration {step} is saved and whole: go on from it with --resume {folder.quoted}"
            )
    return "nothing of the run is saved"


def _other_seed(seed: int, number: int) -> int:
    """Of noise that is neither the run's own nor that of another number."""
    (word,) = np.random.SeedSequence((seed, number, 1)).generate_state(1, np.uint64)
    return int(word >> np.uint64(1))
