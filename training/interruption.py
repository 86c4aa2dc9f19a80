"""How a run ends early: by an error, or by SIGINT or SIGTERM after it is saved."""

import os
import shlex
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

from inference.errors import GanpackError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingError(GanpackError):
    """Training cannot start or go on; the message says why."""


class Interrupted(GanpackError):
    """A run was stopped by a signal, and is saved."""

    heading = ""

    def __init__(self, run_dir: Path, step: int, number: int, best: str = "") -> None:
        """best: the best snapshot so far, in words; empty if nothing was scored yet."""
        folder = shlex.quote(str(run_dir))
        export = f"; python -m export.run {folder} exports the best so far, {best}" if best else ""
        super().__init__(
            f"stopped by {signal.Signals(number).name}, saved at iteration {step}: go on with "
            f"python -m training.run --resume {folder}{export}"
        )
        self.exit_code = 128 + number


class Interruption:
    """A context manager that notes the first SIGINT or SIGTERM; a second one ends the process.

    It does nothing outside the main thread, where Python allows no handlers. It also leaves signals
    alone that are ignored, as under nohup.  quiet: print nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.number: int | None = None
        """The signal that was received."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for each in _SIGNALS:
                if signal.getsignal(each) is not signal.SIG_IGN:
                    self._before[each] = signal.signal(each, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        # The default action ends the process at once, without waiting for Python code.
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        # Not `print`: the signal may have interrupted a `print`. Nobody may be there to read it.
        if not self._quiet:
            with suppress(OSError):
                os.write(2, b"\nstopping after this step; once more to stop at once\n")
