"""A TensorBoard event file, written without a thread of its own.

PyTorch's writer has a thread. Without one, a write error is raised where it happens, and `sync`
really puts everything on the disk. The files of a folder are read in the order in which they were
created, whatever the clock says.
"""

import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.summary.writer.record_writer import RecordWriter

from training.records.event_rows import EventRows

_PREFIX = "events.out.tfevents."
_NAME = re.compile(re.escape(_PREFIX) + r"(\d{10})\D.*", re.ASCII | re.DOTALL)
_LAST = "9" * 10  # no file could come after one of this name


class EventFile:
    """A new event file in a folder; TensorBoard drops older events from `purge_step` on."""

    def __init__(self, folder: Path, purge_step: int, descriptions: Mapping[str, str]) -> None:
        """descriptions: the text that TensorBoard shows for each tag."""
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard sorts the files by name, and the name begins with the second of creation.
        names = (_NAME.fullmatch(path.name) for path in folder.glob(f"{_PREFIX}*"))
        seconds = [int(name[1]) for name in names if name and name[1] != _LAST]
        number = max(int(time.time()), max(seconds, default=0) + 1)
        path = folder / f"{_PREFIX}{number:010d}.{platform.node()}"
        self._file = path.open("xb")  # never through a link
        self._writer = RecordWriter(self._file)
        self._rows: EventRows | None = None
        self._undescribed = dict(descriptions)
        self._event(Event(step=purge_step, file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._event(Event(step=purge_step, session_log=start))

    def add(self, step: int, summary: Summary) -> None:
        """Write a summary for a step."""
        self._event(Event(step=step, summary=summary))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Write numbers for a step, by tag."""
        pairs = [
            Summary.Value(
                tag=tag,
                simple_value=value,
                # TensorBoard keeps the metadata of the first value of a tag.
                metadata=SummaryMetadata(summary_description=self._undescribed.pop(tag, "")),
            )
            for tag, value in values.items()
        ]
        self.add(step, Summary(value=pairs))

    def picture(self, step: int, tag: str, shape: tuple[int, ...], png: bytes) -> None:
        """Write a picture for a step.  shape: (H, W) or (H, W, 3).  png: the encoded picture."""
        height, width, *colours = shape
        channels = colours[0] if colours else 1
        encoded = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png
        )
        self.add(step, Summary(value=[Summary.Value(tag=tag, image=encoded)]))

    def table(self, first_step: int, tags: tuple[str, ...], values: NDArray[np.float32]) -> None:
        """Numbers at each of the steps from `first_step` on, at least 1; values: (steps, tags).

        As `scalars` for each step, in a hundredth of the time.
        """
        if not self._undescribed.keys().isdisjoint(tags):
            self.scalars(first_step, dict(zip(tags, values[0].tolist(), strict=True)))
            first_step, values = first_step + 1, values[1:]
        if self._rows is None or self._rows.tags != tags:
            self._rows = EventRows(tags)
        self._file.write(self._rows.encode(time.time(), first_step, values))

    def sync(self) -> None:
        """Put everything on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _event(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())
