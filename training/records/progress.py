"""The progress of a run: a bar on a terminal, else a line every 30 seconds. Scores get a line."""

import sys
import time
from typing import Self

from tqdm import tqdm

from training.run_folder.scores import Scores, shown

_LINE_SECONDS = 30.0
_FIRST_SECONDS = 3.0
_SAID = {"fcd", "excess", "recall", "by_heart"}  # of the scores; files and pages have all


class ProgressBar:
    """Shows epoch, iteration, both losses, iterations/s and the time left, on stderr."""

    def __init__(self, step: int, total: int) -> None:
        self._first, self._total = step, total
        self._start = time.monotonic()
        self._due = self._start + _FIRST_SECONDS
        self._scored = False
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
        if now < self._due and step < self._total:
            return
        self._due = now + _LINE_SECONDS
        rate = (step - self._first) / (now - self._start)
        left = tqdm.format_interval((self._total - step) / rate)
        speed = f"{rate:.0f} it/s" if rate >= 1 else f"{1 / rate:.1f} s/it"
        _say(f"epoch {epoch}, iteration {step}/{self._total}, {losses}, {speed}, {left} left")

    def begin_scoring(self) -> None:
        """Show that the run scores instead of taking steps."""
        if self._bar is not None:
            self._bar.set_postfix_str("scoring")
        elif not self._scored:
            _say("scoring the first snapshot")

    def end_scoring(self, step: int, scores: Scores) -> None:
        """Show the scores of the average after `step`."""
        self._scored = True
        some = (score for score in shown([scores]) if score.name in _SAID)
        found = (f"{score.title} {score.text(scores)}" for score in some)
        _say(f"scores of iteration {step}: {', '.join(found)}")


def _say(line: str) -> None:
    """Print a line on stderr, above the bar if there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
