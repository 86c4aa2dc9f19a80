"""The progress of a run: a bar on a terminal, else a line every 30 seconds."""

import sys
import time
from typing import Self

from tqdm import tqdm

_LINE_SECONDS = 30.0


class ProgressBar:
    """Shows epoch, iteration, both losses, iterations/s and the time left, on stderr."""

    def __init__(self, step: int, total: int) -> None:
        self._first, self._total = step, total
        self._start = self._spoke = time.monotonic()
        self._bar = (
            tqdm(total=total, initial=step, unit="it", smoothing=0.05, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, step: int, epoch: int, loss_g: float, loss_d: float) -> None:
        """Show that the run is at `step`, in `epoch` (1, 2, …)."""
        losses = f"loss_g {loss_g:.3f}, loss_d {loss_d:.3f}"
        if self._bar is not None:
            self._bar.set_description_str(f"epoch {epoch}", refresh=False)
            self._bar.set_postfix_str(losses, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._spoke < _LINE_SECONDS and step < self._total:
            return
        self._spoke = now
        rate = (step - self._first) / (now - self._start)
        left = tqdm.format_interval((self._total - step) / rate)
        print(
            f"epoch {epoch}, iteration {step}/{self._total}, {losses}, "
            f"{rate:.0f} it/s, {left} left",
            file=sys.stderr,
            flush=True,
        )
