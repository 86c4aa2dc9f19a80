"""The folder of a run: its file names, and the lock against other processes."""

import fcntl
import os
import platform
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from inference.errors import GanpackError
from inference.writing.files import sweep
from training.config import TrainConfig


class RunFolderError(GanpackError):
    """A folder cannot be used for a run; the message says why."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of all files of a run. No other code spells these names."""

    path: Path

    @classmethod
    def of_checkpoint(cls, checkpoint: Path) -> Self:
        """The run folder that a generator snapshot lies in."""
        return cls(checkpoint.parent.parent)

    @property
    def quoted(self) -> str:
        """The path as a command line takes it."""
        return shlex.quote(str(self.path))

    @property
    def config(self) -> Path:
        """Settings, data, versions and machine, as JSON."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """The losses of every iteration and the means of every epoch; one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """A folder of event files."""
        return self.path / "tensorboard"

    @property
    def best(self) -> Path:
        """The best snapshot by each rule, as JSON."""
        return self.path / "best.json"

    @property
    def last(self) -> Path:
        """The newest training state."""
        return self.path / "last.pt"

    @property
    def previous(self) -> Path:
        """An older training state, for the case that the newest is damaged."""
        return self.path / "previous.pt"

    @property
    def checkpoints(self) -> Path:
        """A folder of generator snapshots."""
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        """A folder of sample grids, all of the same noise."""
        return self.path / "samples"

    @property
    def real(self) -> Path:
        """A grid of real images."""
        return self.path / "real.png"

    @property
    def nearest(self) -> Path:
        """Samples above the training images that are nearest to them."""
        return self.path / "nearest.png"

    @property
    def classes(self) -> Path:
        """A row of samples for each class, of a conditional run."""
        return self.path / "classes.png"

    @property
    def report(self) -> Path:
        """The page about the run."""
        return self.path / "report.html"

    @property
    def artifact(self) -> Path:
        """The folder that an export writes by default."""
        return self.path / "artifact"

    @property
    def extractor(self) -> Path:
        """The classifier that scores are measured with, if --data-dir could not take it."""
        return self.path / "extractor.safetensors"

    @property
    def lock(self) -> Path:
        """The file that a process locks while it writes to the folder."""
        return self.path / ".lock"

    def checkpoint(self, step: int) -> Path:
        """The generator snapshot of a step."""
        return self.checkpoints / f"step-{step:07d}.pt"

    def grid(self, step: int) -> Path:
        """The sample grid of a step."""
        return self.samples / f"step-{step:07d}.png"

    def checkpoints_by_step(self) -> dict[int, Path]:
        """The generator snapshots in the folder, ordered by step."""
        return _by_step(self.checkpoints, ".pt")

    def grids_by_step(self) -> dict[int, Path]:
        """The sample grids in the folder, ordered by step."""
        return _by_step(self.samples, ".png")

    def remove_after(self, step: int) -> None:
        """Remove snapshots and sample grids of later steps; a resumed run makes them again."""
        for files in (self.checkpoints_by_step(), self.grids_by_step()):
            for number, path in files.items():
                if number > step:
                    path.unlink()


def _by_step(folder: Path, suffix: str) -> dict[int, Path]:
    steps = {int(path.stem.removeprefix("step-")): path for path in folder.glob(f"step-*{suffix}")}
    return dict(sorted(steps.items()))


def new_run_dir(config: TrainConfig) -> Path:
    """The default folder of a new run: runs/DATASET-DATE-TIME."""
    name = Path(config.data.dataset).resolve().name
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def newest_run() -> Path:
    """The run under runs/ that was saved last.

    Raises:
        RunFolderError: if there is none.
    """
    saved = [path for path in Path("runs").glob("*") if RunFolder(path).last.exists()]
    if not saved:
        raise RunFolderError("no run under runs/: train one first, or name its folder")
    return max(saved, key=lambda path: RunFolder(path).last.stat().st_mtime)


def refuse_used(folder: RunFolder) -> None:
    """Raise RunFolderError if a folder for a new run is not empty.

    A lock file and temporary files do not count: a run that was killed at its start leaves them.
    """
    if not folder.path.exists():
        return
    if any(path != folder.lock and path.suffix != ".tmp" for path in folder.path.iterdir()):
        raise RunFolderError(
            f"{folder.path} is not empty: continue its run with --resume {folder.quoted}"
        )


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Lock a run folder, which is made if needed; remove temporary files of a killed run.

    The operating system releases the lock when the process ends, however that happens.

    Raises:
        RunFolderError: if another process holds it.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "one that is just starting"
            raise RunFolderError(
                f"{folder.path} is being written by another process ({holder}): wait for its end, "
                f"or stop it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        for each in (folder.path, folder.checkpoints, folder.samples):
            sweep(each)
        yield
