"""`make gpu-check` gives as many results as its time allows, even if parts hang or fail."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check, gpu_parts
from benchmarks.gpu_check import run_part, table
from benchmarks.gpu_parts import CheckConfig, Part, parts
from inference import ProviderError
from tests.support.files import ROOT

NAMES = [
    "tests", "engines", "sampling", "exercise", "exports", "quality", "convolutions", "textbook",
]  # fmt: skip


def python(code: str, *arguments: str, share: float = 1.0, skip: str | None = None) -> Part:
    return Part("a", share, ["-c", code.replace("{", "{{").replace("}", "}}"), *arguments], skip)


def test_a_part_brings_its_figures_and_its_last_lines(tmp_path: Path) -> None:
    code = "import pathlib, sys; print('hello'); pathlib.Path(sys.argv[1]).write_text('[1]')"
    result = run_part(python(code, "{json}"), 60, tmp_path)
    assert (result["state"], result["figures"], result["last_lines"]) == ("done", [1], ["hello"])


def test_a_part_has_variables_of_its_own(tmp_path: Path) -> None:
    part = replace(python("import os; print(os.environ['ABC'])"), environment={"ABC": "5"})
    assert run_part(part, 60, tmp_path)["last_lines"] == ["5"]
    assert "ABC" not in os.environ


def test_the_gpu_tests_start_in_several_processes(tmp_path: Path) -> None:
    sampling, others = gpu_parts._tests()
    assert "-n" in others.arguments
    assert "-n" not in sampling.arguments
    few = ["tests/training/test_ranks.py" if each == "tests" else each for each in others.arguments]
    result = run_part(replace(others, arguments=few), 100, tmp_path)
    assert result["state"] == "done", result


def test_a_part_that_fails_is_said_to(tmp_path: Path) -> None:
    result = run_part(python("import sys; sys.exit('no such thing')"), 60, tmp_path)
    assert (result["state"], result["reason"]) == ("failed", "exit code 1")
    assert result["last_lines"] == ["no such thing"]


def test_a_part_is_stopped_at_its_limit_with_all_that_it_started(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child = "import os, signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    code = f"""
import pathlib, subprocess, sys
pathlib.Path(sys.argv[1]).write_text('{{"rate": 7}}')
child = subprocess.Popen([sys.executable, "-c", {child!r}])
print(child.pid, flush=True)
child.wait()
"""
    begin = time.monotonic()
    result = run_part(python(code, "{json}"), 4, tmp_path)
    assert time.monotonic() - begin < 30
    assert (result["state"], result["reason"]) == ("stopped", "its 4 s were over")
    assert result["figures"] == {"rate": 7}
    (line,) = result["last_lines"]
    assert capfd.readouterr().out == f"{line}\n"
    deadline = time.monotonic() + 10
    while Path(f"/proc/{line}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(int(line), 0)


def test_what_cannot_run_is_skipped_for_a_reason(tmp_path: Path) -> None:
    result = run_part(python("", skip="no GPU"), 60, tmp_path)
    assert result == {"state": "skipped", "reason": "no GPU"}
    assert run_part(python(""), 1, tmp_path)["reason"] == "the budget is spent"
    assert table({"a": result}).split() == ["a", "0.0", "s", "skipped:", "no", "GPU"]


def test_the_parts_are_those_asked_for_in_the_order_of_importance() -> None:
    assert [part.name for part in parts(CheckConfig(device="cpu"))] == NAMES
    some = parts(CheckConfig(device="cpu", parts=("textbook", "engines")))
    assert [part.name for part in some] == ["engines", "textbook"]
    with pytest.raises(SystemExit, match=r"no part is called speed: there are tests, engines"):
        parts(CheckConfig(parts=("speed",)))


def test_sampling_is_not_measured_on_cuda_without_a_cuda_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(runtime: Any, device: int) -> None:
        raise ProviderError("no CUDA provider: pip install")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu_parts, "require_cuda", refuse)
    found = {part.name: part for part in parts(CheckConfig())}
    assert found["sampling"].skip == "no CUDA provider: pip install"
    assert [part.name for part in found.values() if part.skip] == ["sampling"]


def test_time_that_is_left_over_goes_to_later_parts_and_each_is_written_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results" / "check.json"
    limits: list[float] = []
    written: list[int] = []

    def run(part: Part, seconds: float, folder: Path) -> dict[str, Any]:
        limits.append(seconds)
        written.append(len(json.loads(file.read_text())["parts"]) if file.exists() else 0)
        return {"state": "skipped", "reason": part.skip} if part.skip else {"state": "done"}

    fakes = [
        python("", share=share, skip=skip) for share, skip in ((50, "no"), (30, None), (10, None))
    ]
    fakes = [Part(str(i), part.share, part.arguments, part.skip) for i, part in enumerate(fakes)]
    monkeypatch.setattr(gpu_check, "parts", lambda config: fakes)
    monkeypatch.setattr(gpu_check, "run_part", run)
    monkeypatch.setattr(
        sys, "argv", ["x", "--device", "cpu", "--budget", "80", "--json", str(file)]
    )
    assert gpu_check.main() == 0
    assert limits[1:] == [pytest.approx(60, abs=5), pytest.approx(80, abs=5)]
    assert written == [0, 1, 2]
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "0                 0.0 s  skipped: no", "1                 0.0 s  done",
        "2                 0.0 s  done",
    ]  # fmt: skip


@pytest.mark.full
def test_every_part_runs_on_a_cpu_in_a_checkout_that_is_not_installed(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_check", "--device", "cpu", "--budget", "300"],
        cwd=checkout, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(checkout)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((checkout / "benchmarks" / "results" / "gpu-check.json").read_text())
    results = found["parts"]
    assert list(results) == NAMES
    assert results["tests"] == {"state": "skipped", "reason": "it was asked for the CPU"}
    assert {name: r["state"] for name, r in results.items() if r["state"] != "done"} == {
        "tests": "skipped"
    }
    engines = results["engines"]["figures"]["engines"]
    assert {(row["recipe"], row["engine"]) for row in engines} >= {
        ("bce", "plain"), ("r3gan", "plain"), ("bce", "compiled"), ("r3gan", "compiled"),
    }  # fmt: skip
    for row in engines:
        assert row["iterations_per_second"] > 0
        assert row["kernels_a_step"] > 0
        assert row["busy_us_a_step"] > 0
        assert len(row["largest"]) == 10
    exports = results["exports"]["figures"]["exports"]
    assert {network: "largest" in row for network, row in exports.items()} == {
        "mlp": True, "conv": True,
    }  # fmt: skip
    runs = results["exercise"]["figures"]["runs"]
    assert all(run["seconds"]["steps"] > 0 and run["iterations"] > 0 for run in runs.values())
    assert results["sampling"]["figures"]["rates"]
    assert len(results["quality"]["figures"]["seconds_until_fcd"]) == 2
    assert results["convolutions"]["figures"]["network"] == "conv"
    assert "textbook" in results["textbook"]["figures"]["iterations_per_second"]
