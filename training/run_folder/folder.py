"""The folder of a run: which one, and that no other process writes to it."""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from inference.writing.files import sweep
from training.config import TrainConfig

LOCK_FILE = ".lock"


class RunFolderError(Exception):
    """A folder cannot take a run; the message says why."""


def new_run_dir(config: TrainConfig) -> Path:
    """runs/DATASET-DATE-TIME."""
    name = Path(config.data.dataset).resolve().name
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def newest_run() -> Path:
    """The run under runs/ that was saved last.

    Raises:
        RunFolderError: if there is none.
    """
    saves = list(Path("runs").glob("*/last.pt"))
    if not saves:
        raise RunFolderError("no run under runs/: train one first, or name its folder")
    return max(saves, key=lambda path: path.stat().st_mtime).parent


def refuse_used(run_dir: Path) -> None:
    """Raise RunFolderError if a folder for a new run holds anything.

    What a run leaves that was killed before it began does not count.
    """
    if not run_dir.exists():
        return
    if any(path.name != LOCK_FILE and path.suffix != ".tmp" for path in run_dir.iterdir()):
        raise RunFolderError(f"{run_dir} is not empty: continue its run with --resume {run_dir}")


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a run folder, made if need be, alone; sweep what a killed run left half-written.

    The lock is the system's: it ends with its process, however that ends.

    Raises:
        RunFolderError: if another process holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / LOCK_FILE).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "one that is just starting"
            raise RunFolderError(
                f"{run_dir} is being written by another process ({holder}): wait for its end, or "
                f"stop it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        for folder in (run_dir, run_dir / "checkpoints", run_dir / "samples"):
            sweep(folder)
        yield
