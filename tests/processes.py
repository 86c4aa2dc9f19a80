"""Training in processes of its own, to be killed."""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
# Imported once, so that a process is in the middle of training within a second.
_context.set_forkserver_preload(
    ["training.loop", "training.run", "sklearn.datasets", "torchvision.transforms.v2.functional"]
)


def start(target: Callable[..., None], *arguments: object) -> BaseProcess:
    process = _context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def run(run_dir: Path, arguments: list[str], save_seconds: float) -> None:
    """`python -m training.run`, with saves every so often; what it prints goes to run_dir.log."""
    from training import run, running

    running._SAVE_SECONDS = save_seconds
    # What a shell starts in the background ignores SIGINT, and so would this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with run_dir.with_suffix(".log").open("a", encoding="utf-8") as log:
        sys.stdout = sys.stderr = log
        sys.exit(run.main(arguments))


def run_slowly(run_dir: Path, arguments: list[str], save_seconds: float) -> None:
    """The same, with steps that take minutes once something is saved."""
    import time
    from typing import Any

    from training.engine import Engine

    quick = Engine.run

    def slow(self: Engine, count: int) -> Any:
        if self._state.step > 20:
            run_dir.with_suffix(".slow").touch()
            time.sleep(300)
        return quick(self, count)

    Engine.run = slow  # type: ignore[method-assign]
    run(run_dir, arguments, save_seconds)


def hold(run_dir: Path) -> None:
    """Hold the lock of a run folder until killed."""
    import time

    from training.run_folder import locked

    with locked(run_dir):
        run_dir.with_suffix(".held").touch()
        time.sleep(300)
