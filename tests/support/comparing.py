"""Compare the folders of two runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.run_folder.sealed_file import load


def assert_same_run(run_dir: Path, other: Path) -> None:
    """Check that two runs have the same bits, and that nothing is recorded twice or missing."""
    assert_same_state(run_dir, other)
    for kind in ("iteration", "epoch"):
        assert without_timing(read_lines(run_dir, kind)) == without_timing(read_lines(other, kind))
    for tag in ("loss/generator", "quality/fcd", "mean/probability_real"):
        found, expected = (events(run).Scalars(tag) for run in (run_dir, other))
        assert [(e.step, e.value) for e in found] == [(e.step, e.value) for e in expected]
    assert (run_dir / "best.json").read_bytes() == (other / "best.json").read_bytes()
    found, expected = (sorted((run / "samples").iterdir()) for run in (run_dir, other))
    assert [path.read_bytes() for path in found] == [path.read_bytes() for path in expected]
    assert not list(run_dir.rglob("*.tmp"))


def read_lines(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def events(run_dir: Path) -> Any:
    """All values that TensorBoard has from a run."""
    everything = {"scalars": 0, "images": 0}
    return EventAccumulator(str(run_dir / "tensorboard"), everything).Reload()


def without_timing(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in records]


def tensors(content: Any) -> Iterator[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from tensors(value)
    elif isinstance(content, list):
        for value in content:
            yield from tensors(value)


def assert_same_state(a: Path, b: Path) -> None:
    """Check that networks, average, optimizers and random state have the same bits."""
    first, second = list(tensors(load(a / "last.pt"))), list(tensors(load(b / "last.pt")))
    assert len(first) == len(second) > 40
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
