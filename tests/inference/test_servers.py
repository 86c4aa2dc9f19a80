"""The application of docs/sampler.md under gunicorn, loaded before the fork and after it."""

import io
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from inference import Sampler
from tests.support.files import ROOT

pytest.importorskip("gunicorn", reason="gunicorn is not installed: pip install -e '.[dev]'")


def started(folder: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """gunicorn with two workers, and its address."""
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0"]
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    process = subprocess.Popen(
        [*command, *options, "app:app"], cwd=folder, stderr=subprocess.PIPE, text=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"Listening at: (\S+)", line):
            return process, found[1]
    raise AssertionError("gunicorn did not start")


def test_gunicorn_serves_and_stops_at_once(tiny_artifact: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "sampler.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(# app\.py\n.*?)```", page, re.DOTALL)
    (tmp_path / "app.py").write_text(code)
    (tmp_path / "artifact").symlink_to(tiny_artifact)
    expected = Sampler(tiny_artifact, provider="cpu").sample(16, seed=3)
    servers = [started(tmp_path), started(tmp_path, "--preload")]
    try:
        for _, address in servers * 3:  # both workers of each, as good as surely
            with urllib.request.urlopen(f"{address}/?seed=3", timeout=30) as response:
                images = np.load(io.BytesIO(response.read()))
            np.testing.assert_array_equal(images, expected)
        began = time.monotonic()
        for process, _ in servers:
            process.send_signal(signal.SIGTERM)
        for process, _ in servers:
            assert process.wait(20) == 0
        assert time.monotonic() - began < 10  # a worker that hangs is killed after 30
    finally:
        for process, _ in servers:
            process.kill()
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
