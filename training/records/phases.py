"""Where the time of a run goes."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal, get_args

Phase = Literal[
    "start",  # imports, data, networks
    "engine",  # compiling, capturing, comparing
    "reference",  # features of real images; the classifier that finds them, if it is trained now
    "steps",
    "records",  # metrics.jsonl, TensorBoard
    "average",  # BatchNorm statistics of the averaged generator
    "samples",  # grids
    "scores",
    "checkpoints",
    "saves",  # last.pt, best.json
    "verdict",  # the choices scored on fresh noise
    "report",
    "other",
]
PHASES: tuple[Phase, ...] = get_args(Phase)


class PhaseTimer:
    """Divides the wall time of a run among phases; at each moment exactly one phase is active.

    The seconds of all phases therefore sum to the wall time since `began`.
    """

    def __init__(self, began: float | None = None) -> None:
        """began: the value of `time.monotonic()` at the start of the run; by default now."""
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._phase: Phase = "start"
        self._since = time.monotonic() if began is None else began

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Count the time of a block as a phase, except for the phases inside the block."""
        outer = self._phase
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def add(self, seconds: Mapping[Phase, float]) -> None:
        """Add the seconds that an earlier process spent on the same run."""
        for name in PHASES:
            self._seconds[name] += seconds.get(name, 0.0)

    def seconds(self) -> dict[Phase, float]:
        """The seconds of each phase until now, in the order of `PHASES`, without empty phases."""
        self._switch(self._phase)
        return {name: round(value, 3) for name, value in self._seconds.items() if value}

    def _switch(self, name: Phase) -> None:
        now = time.monotonic()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = name, now


def in_words(seconds: Mapping[Phase, float]) -> str:
    """The wall time, and the phases that took at least 1 % of it, longest first."""
    total = sum(seconds.values())
    longest = sorted(seconds.items(), key=lambda item: -item[1])
    parts = [f"{name} {value:.1f}" for name, value in longest if value >= total / 100]
    return f"{total:.1f} s: {', '.join(parts)}"
