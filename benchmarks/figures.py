"""Writing figures, choosing a device and keeping to a time limit, for all benchmarks."""

import json
import time
from pathlib import Path
from typing import Any

import torch


def write_figures(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures as JSON and make the folder of the file; None: write nothing."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", "utf-8")


def device_named(name: str) -> torch.device:
    """The device that an option names: cuda, cpu, or auto (CUDA if there is a GPU)."""
    cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if cuda else "cpu")


class Deadline:
    """The end of a time limit that starts now."""

    def __init__(self, seconds: float | None) -> None:
        """seconds: None for no limit."""
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float:
        """Seconds that are left; infinite without a limit."""
        return float("inf") if self._end is None else self._end - time.monotonic()
