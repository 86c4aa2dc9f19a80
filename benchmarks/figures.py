"""Where benchmarks write their figures, and how long they may take."""

import json
import time
from pathlib import Path
from typing import Any

import torch


def write_figures(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON, if a file was asked for; its folder is made."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", "utf-8")


def device_named(name: str) -> torch.device:
    """The device of an option `auto`, `cuda` or `cpu`; auto takes CUDA where there is a GPU."""
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")


class Deadline:
    """A number of seconds from now on."""

    def __init__(self, seconds: float | None) -> None:
        """seconds: None for no limit."""
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then, infinite where there is no limit."""
        return float("inf") if self._end is None else self._end - time.monotonic()
