"""The folder of a run: its file names, and the lock against other processes."""

import fcntl
import os
import platform
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self, TextIO

from inference.errors import GanpackError
from inference.writing.files import is_temporary, sweep
from training.config import TrainConfig

_STEP = re.compile(r"step-(\d{7}|[1-9]\d{7,17})", re.ASCII)


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

    def refuse_links(self) -> None:
        """Raise RunFolderError if a folder in it is a symbolic link: it may lead anywhere."""
        for path in (self.checkpoints, self.samples, self.tensorboard, self.lock):
            if path.is_symlink():
                raise RunFolderError(
                    f"{path} is a symbolic link, and nothing is written through links in a run "
                    f"folder: put what it leads to in its place, or remove it"
                )

    def holds_only(self, files: set[Path], folders: set[Path]) -> bool:
        """Whether it holds nothing but some of these files, empty folders, and temporary files."""
        for path in self.path.iterdir():
            if path.is_symlink():
                return False
            if path in folders and path.is_dir():
                if not all(is_temporary(inner) for inner in path.iterdir()):
                    return False
            elif not (is_temporary(path) or (path in files and path.is_file())):
                return False
        return True

    def remove_after(self, step: int) -> None:
        """Remove snapshots and sample grids of later steps; a resumed run makes them again."""
        for files in (self.checkpoints_by_step(), self.grids_by_step()):
            for number, path in files.items():
                if number > step:
                    path.unlink()


def _by_step(folder: Path, suffix: str) -> dict[int, Path]:
    """The plain files in a folder that are named exactly as ours, by step."""
    found = {
        int(match[1]): path
        for path in folder.glob(f"step-*{suffix}")
        if (match := _STEP.fullmatch(path.stem)) and path.is_file()
    }
    return dict(sorted(found.items()))


def new_run_dir(config: TrainConfig) -> Path:
    """The default folder of a new run: runs/DATASET-DATE-TIME."""
    name = Path(config.data.dataset).resolve().name
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def newest_run() -> Path:
    """The run under runs/ that was saved last.

    Raises:
        RunFolderError: if there is none.
    """
    saved = [path for path in Path("runs").glob("*") if RunFolder(path).last.is_file()]
    if not saved:
        raise RunFolderError("no run under runs/: train one first, or name its folder")
    return max(saved, key=lambda path: RunFolder(path).last.stat().st_mtime)


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Lock a run folder, which is made if needed; remove temporary files of a killed run.

    The operating system releases the lock when the process ends, however that happens.

    Raises:
        RunFolderError: if another process holds it, or if it leads elsewhere by a symbolic link.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.refuse_links()
    with _opened_lock(folder.lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = "".join(filter(str.isprintable, file.read(100))) or "one that is just starting"
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


def _opened_lock(path: Path) -> TextIO:
    """Open the lock file; it is made if needed."""
    # Neither follow a link nor wait for the reader of a pipe.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    number = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise RunFolderError(f"{path} is no plain file: remove it")
    return os.fdopen(number, "r+", encoding="utf-8", errors="replace")
