"""Records of many steps at once equal records of single steps."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from training.config import TrainConfig, options
from training.records.event_file import EventFile
from training.records.event_rows import EventRows
from training.records.metrics import Records
from training.run_folder.folder import RunFolder

TAGS = ("loss/generator", "x" * 200, "D(x), of real images")


@pytest.mark.parametrize("first", [1, 120, 16_380, 2_097_148, 2**40])
def test_rows_are_the_bytes_that_protobuf_and_tensorboard_write(first: int, tmp_path: Path) -> None:
    """Rows whose step needs one more byte from some row on."""
    values = np.random.default_rng(0).standard_normal((10, 3)).astype(np.float32)
    values[0] = 0
    with (tmp_path / "events").open("wb") as file:
        writer = RecordWriter(file)
        for i, row in enumerate(values.tolist()):
            pairs = [Summary.Value(tag=t, simple_value=v) for t, v in zip(TAGS, row, strict=True)]
            event = Event(wall_time=1.7e9, step=first + i, summary=Summary(value=pairs))
            writer.write(event.SerializeToString())
    assert EventRows(TAGS).encode(1.7e9, first, values) == (tmp_path / "events").read_bytes()


def test_a_table_in_an_event_file_is_read_by_tensorboard(tmp_path: Path) -> None:
    file = EventFile(tmp_path, 1, {TAGS[0]: "described"})
    values = np.arange(18, dtype=np.float32).reshape(6, 3)
    file.table(1, TAGS, values[:4])
    file.table(5, TAGS, values[4:])
    file.close()
    (path,) = tmp_path.iterdir()
    found = [event for event in LegacyEventFileLoader(str(path)).Load() if event.summary.value]
    assert [event.step for event in found] == list(range(1, 7))
    assert [[v.simple_value for v in e.summary.value] for e in found] == values.tolist()
    described = [e.summary.value[0].metadata.summary_description for e in found]
    assert described == ["described", *[""] * 5]


def test_lines_are_those_of_json(tmp_path: Path) -> None:
    losses = np.array([[0.1, 1e-30, 1, 3.4e38], [-0.0, 2.5, 1e22, 0.30000001]], np.float32)
    with Records(RunFolder(tmp_path), 4, [], options(TrainConfig())) as records:
        records.iterations(6, losses, 100.0)
        with pytest.raises(ValueError, match="no NaN"):
            records.iterations(7, losses[:1] * np.float32("nan"), 100.0)
    names = ("loss_g", "loss_d", "d_real", "d_fake")
    expected = [
        json.dumps({"kind": "iteration", "step": step, **dict(zip(names, row, strict=True))})
        for step, row in zip((5, 6), losses.tolist(), strict=True)
    ]
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == expected


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(b'"step"', b'"stdp"'),
        lambda line: line.replace(b'"step": ', b'"step":"'),
        lambda line: b"\xff" + line[1:],
        lambda line: b"null\n",
        lambda line: b'{"step": {}}\n',
    ],
)
def test_damaged_records_are_dropped_and_counted(
    damage: Callable[[bytes], bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder(tmp_path)
    with Records(folder, 0, [], options(TrainConfig())) as records:
        records.iterations(5, np.ones((5, 4), np.float32), 100.0)
    lines = folder.metrics.read_bytes().splitlines(keepends=True)
    folder.metrics.write_bytes(b"".join([*lines[:2], damage(lines[2]), *lines[3:], lines[0][:9]]))
    with Records(folder, 4, [], options(TrainConfig())):
        pass
    assert folder.metrics.read_bytes() == b"".join([*lines[:2], lines[3]])
    assert "metrics.jsonl: 1 of 4 iterations are lost" in caplog.text
