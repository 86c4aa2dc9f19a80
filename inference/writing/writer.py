"""The base of all writers, which take batches and leave a complete output or none."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Job:
    """Which images a writer will receive, and how to show them."""

    count: int
    image_shape: tuple[int, ...]
    """(H, W) or (H, W, 3)."""
    seed: int = 0
    start: int = 0
    captions: bool = False
    """Write "seed/index" below each image of a grid."""
    scale: int = 1
    """Size in the picture of each pixel of an image."""
    names: Sequence[str] = ()
    """The name of each image's class, for its caption."""


class Writer(ABC):
    """A context manager that takes batches. The output is complete at its end, or absent on error.

    After a KeyboardInterrupt the images so far are kept, if they make a complete output.
    """

    def __init__(self) -> None:
        self.done = 0
        """Number of images that are written, or that will be."""
        self._open = ExitStack()

    @abstractmethod
    def write(self, batch: NDArray[np.uint8]) -> None:
        """Take the next images, uint8 (n, H, W[, 3])."""

    def _finish(self) -> None:  # noqa: B027 - a folder has nothing to complete
        """Complete the output with the images so far."""

    def _keeps_parts(self) -> bool:
        return self.done > 0

    def __enter__(self) -> Self:
        """Open the output."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the output, or remove it."""
        if error is None or (isinstance(error, KeyboardInterrupt) and self._keeps_parts()):
            try:
                self._finish()
            except BaseException:
                self._open.__exit__(*sys.exc_info())
                raise
            self._open.close()
        else:
            self._open.__exit__(kind, error, trace)
