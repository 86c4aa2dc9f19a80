"""metrics.jsonl as it is read: which of its lines are sound. No torch."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from inference.writing.plain_file import open_plain
from training.run_folder.history import EpochRecord
from training.run_folder.json_file import parse_object

COLUMNS = ("loss_g", "loss_d", "d_real", "d_fake")
"""What a step measures, by its names in metrics.jsonl."""

_LONGEST_LINE = 2**20


class Iteration(NamedTuple):
    """A line about one step."""

    line: bytes
    step: int
    losses: list[float]
    """In the order of `COLUMNS`."""


class SoundLines:
    """The lines of a file that are whole, typed and in order. The other lines are counted."""

    def __init__(self, path: Path, most: int) -> None:
        """most: the largest size of the file, in bytes."""
        self._path, self._most = path, most
        self.epochs: list[EpochRecord] = []
        """The epochs; complete after `iterations`."""
        self.damaged = 0
        """Number of lines that are damaged, or out of order; complete after `iterations`."""

    def iterations(self) -> Iterator[Iteration]:
        """The steps, in ascending order.

        Raises:
            OSError: if there is no such file, or if it is no plain file, or larger.
        """
        last, held = 0, None
        for found in self._records():
            if isinstance(found, EpochRecord):
                if held is not None and last < found.step < held.step:
                    held = None  # an epoch's line follows that of its last step
                    self._drop()
                self._add_epoch(found)
                continue
            # A number that jumps ahead is damaged if the next line continues without it.
            if held is not None and last < held.step and not last < found.step <= held.step:
                yield held
                last = held.step
            elif held is not None:
                self._drop()
            held = found
        if held is not None and held.step > last:
            yield held
        elif held is not None:
            self._drop()

    def _drop(self) -> None:
        self.damaged += 1

    def _add_epoch(self, found: EpochRecord) -> None:
        epochs = self.epochs
        before = epochs[-2:-1]
        if epochs and not _follows(epochs[-1], found) and all(_follows(e, found) for e in before):
            epochs.pop()  # it jumped ahead
            self._drop()
        if not epochs or _follows(epochs[-1], found):
            epochs.append(found)
        else:
            self._drop()

    def _records(self) -> Iterator[Iteration | EpochRecord]:
        for line in self._lines():
            try:
                yield _record(line)
            except ValueError:
                self._drop()

    def _lines(self) -> Iterator[bytes]:
        """The lines that have an end; the last one may still be being written."""
        with open_plain(self._path, self._most) as file:
            while line := file.readline(_LONGEST_LINE):
                if line.endswith(b"\n"):
                    yield line
                elif len(line) == _LONGEST_LINE:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(_LONGEST_LINE)
                    self._drop()
                elif not line.startswith(b"{"):
                    self._drop()


def _record(line: bytes) -> Iteration | EpochRecord:
    values = parse_object(line)
    if values.get("kind") == "epoch":
        return EpochRecord.from_dict(values)
    if values.get("kind") != "iteration":
        raise ValueError("a line of another kind")
    try:
        step, losses = values["step"], [values[name] for name in COLUMNS]
    except KeyError as error:
        raise ValueError(f"no {error}") from None
    # Not `typed`, which takes five times as long: there are a hundred thousand lines.
    if type(step) is not int or not 0 < step < 2**63 or not all(map(_is_finite, losses)):
        raise ValueError("no numbers")
    return Iteration(line, step, losses)


def _is_finite(value: object) -> bool:
    return type(value) in {float, int} and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


def _follows(earlier: EpochRecord, later: EpochRecord) -> bool:
    return earlier.epoch < later.epoch and earlier.step < later.step
