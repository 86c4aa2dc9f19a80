"""Run the GPU tests and all benchmarks in a few minutes; write a table and a JSON file.

python -m benchmarks.gpu_check

python -m benchmarks.gpu_check --budget 120 --parts engines sampling

python -m benchmarks.gpu_check --device cpu    # tiny networks, to check that this program works

This program installs and downloads nothing. It skips what cannot run here, and prints the reason.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

from benchmarks.figures import Deadline, device_named, write_figures
from benchmarks.gpu_parts import CheckConfig, Part, parts
from training.engine.machine import describe_machine
from training.run_folder.origin import package_versions

_LAST_LINES = 20
_SECONDS_TO_STOP = 5.0
_FEWEST_SECONDS = 3.0  # in less time, PyTorch would hardly start


def run_part(part: Part, seconds: float, folder: Path) -> dict[str, Any]:
    """Run a part for at most `seconds`; its result as JSON values."""
    if part.skip:
        return {"state": "skipped", "reason": part.skip}
    if seconds < _FEWEST_SECONDS:
        return {"state": "skipped", "reason": "the budget is spent"}
    start = time.monotonic()
    command = [sys.executable, *part.filled(seconds, folder)]
    code, lines = _run(command, seconds, os.environ | {"PYTHONUNBUFFERED": "1"} | part.environment)
    result: dict[str, Any] = {
        "state": "stopped" if code is None else "failed" if code else "done",
        "seconds": round(time.monotonic() - start, 1),
        "last_lines": lines[-_LAST_LINES:],
    }
    if code is None:
        result["reason"] = f"its {seconds:.0f} s were over"
    elif code:
        result["reason"] = f"exit code {code}"
    with contextlib.suppress(
        OSError, ValueError
    ):  # no file, or the process was stopped while it wrote
        result["figures"] = json.loads((folder / f"{part.name}.json").read_text("utf-8"))
    return result


def _run(
    command: list[str], seconds: float, environment: Mapping[str, str]
) -> tuple[int | None, list[str]]:
    """The exit code of a command, or None if it was stopped, and the lines that it printed."""
    lines: list[str] = []

    def read(output: Any) -> None:
        for line in output:
            print(line, end="", flush=True)
            lines.append(line.rstrip("\n"))

    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True, env=environment,
    ) as process:  # fmt: skip
        reader = threading.Thread(target=read, args=[process.stdout], daemon=True)
        reader.start()
        code: int | None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        _end(process)
        reader.join(_SECONDS_TO_STOP)
    return code, lines


def _end(process: "subprocess.Popen[str]") -> None:
    """End a part and all processes that it started, so that none disturbs the next part."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_STOP)


def table(results: dict[str, dict[str, Any]]) -> str:
    """The result of each part, in a line each."""
    return "\n".join(
        f"{name:14}{result.get('seconds', 0.0):7.1f} s  {result['state']}"
        + (f": {result['reason']}" if "reason" in result else "")
        for name, result in results.items()
    )


def main() -> int:
    """Run the parts; returns 1 if one failed."""
    config = tyro.cli(CheckConfig, prog="python -m benchmarks.gpu_check", description=__doc__)
    deadline, todo = Deadline(config.budget), parts(config)
    results: dict[str, dict[str, Any]] = {}
    machine = describe_machine(device_named(config.device))
    machine |= package_versions("onnxruntime", "onnxruntime-gpu", "onnx")
    with tempfile.TemporaryDirectory() as folder:
        while todo:
            part, waiting = todo[0], [each for each in todo if not each.skip]
            share = part.share / max(sum(each.share for each in waiting), part.share)
            print(f"== {part.name}", flush=True)
            results[part.name] = run_part(todo.pop(0), share * deadline.left(), Path(folder))
            content = {"machine": machine, "budget": config.budget, "parts": results}
            write_figures(config.json, content)
    print(f"== {config.json}\n{table(results)}")
    return int(any(result["state"] == "failed" for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
