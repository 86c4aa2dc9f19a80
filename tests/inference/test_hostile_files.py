"""Damaged and hostile files always raise `ArtifactError`."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.artifact import Metadata
from inference.noise import NOISE
from tests.support.families import NAMES
from tests.support.files import ROOT
from training.gan.networks import Generator

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")


class Worker:
    """A process that loads files under limits. If a file kills the process, it is started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def judge(self, case: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            command = [sys.executable, "-m", "tests.support.hostile_worker", str(self._folder)]
            self._process = subprocess.Popen(
                command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(case) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._process = None
            return {"outcome": f"bad: killed the process, exit code {code}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=30)


@pytest.fixture(scope="module")
def worker(tiny_artifact: Path) -> Iterator[Worker]:
    worker = Worker(tiny_artifact)
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def default_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator.onnx of the default size, with labels and weights in float16."""
    from export.generator_files import export_graph, onnx_file
    from export.half_precision import half_weights
    from export.parity import golden_images

    classes = tuple("0123456789")
    generator = Generator(100, (128, 256, 512, 1024), (1, 28, 28), classes).eval()
    metadata = Metadata(
        role="generator", image_shape=(1, 28, 28), latent_dim=100, noise=NOISE, dataset="mnist",
        recipe="bce", step=1, weights_sha256="", classes=classes, golden=golden_images(generator),
    )  # fmt: skip
    file = tmp_path_factory.mktemp("default") / "generator.onnx"
    file.write_bytes(onnx_file(half_weights(export_graph(generator)), metadata))
    return file


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, 2, 7, 8, 10, 64, 2**16, 2**31 - 1, 2**31, 2**40, 2**62]),
)
OPERATIONS = [
    "Loop", "If", "Scan", "ConstantOfShape", "Expand", "Tile", "Range", "Gather", "Gemm", "MatMul",
    "Relu", "Tanh", "Add", "Identity", "Concat", "Reshape", "Cast", "RandomNormal", "Resize", "",
]  # fmt: skip
LOCATIONS = ["weights.data", "../../../etc/passwd", "/dev/zero", "/etc/passwd", "", "*/_ORT_MEM_*"]
CONTRACT_KEYS = [
    "format_version", "image_shape", "latent_dim", "noise", "classes", "golden", "precision",
    "role", "scores", "parity", "versions", "new",
]  # fmt: skip
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(allow_nan=False, allow_infinity=False),
              st.text(max_size=5), st.sampled_from(["generator", "sampler", "fp16"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
SHARE = st.floats(0, 1, exclude_max=True)
BYTE_EDIT = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["flip", "flip", "cut", "end", "splice", "overwrite"]),
        # The structure of the graph is at the end of the file, the weights are before it.
        "at": st.one_of(SHARE, st.floats(0.9, 1, exclude_max=True), st.floats(0, 0.05)),
        "size": st.one_of(st.integers(1, 16), st.integers(1, 10_000)),
        "bit": st.integers(0, 7),
        "source": SHARE,
    }
)
GRAPH_EDIT = st.one_of(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(
                ["drop", "twice", "rewire", "weights", "attribute", "perm", "subgraph", "dims",
                 "more_dims", "type", "data", "shape", "io", "io_type", "opset", "ir", "function"]
            ),
            "index": st.integers(0, 300),
            "value": NUMBERS,
        }
    ),
    *(
        st.fixed_dictionaries(
            {
                "kind": st.just(kind),
                "index": st.integers(0, 300),
                "value": st.just(0),
                "text": st.sampled_from(texts),
                "json": JSON if kind == "contract" else st.none(),
            }
        )
        for kind, texts in (
            ("op", OPERATIONS),
            ("domain", ["ai.onnx", "com.microsoft", "x"]),
            ("output", ["z", "pixels", "images", ""]),
            ("outside", LOCATIONS),
            ("contract", CONTRACT_KEYS),
        )
    ),
)  # fmt: skip
CASES = st.one_of(
    st.fixed_dictionaries(
        {
            "file": st.sampled_from(
                ["generator.onnx", "generator.onnx", "sampler.onnx", "generator.ts", "README.md"]
            ),
            "seal": st.booleans(),
            "graph": st.just([]),
            "bytes": st.lists(BYTE_EDIT, min_size=1, max_size=3),
        }
    ),
    st.fixed_dictionaries(
        {
            "file": st.just("generator.onnx"),
            "seal": st.just(True),
            "graph": st.lists(GRAPH_EDIT, min_size=1, max_size=3),
            "bytes": st.one_of(st.just([]), st.lists(BYTE_EDIT, max_size=1)),
        }
    ),
)


def judged(worker: Worker, case: dict[str, Any]) -> dict[str, Any]:
    answer = worker.judge(case)
    outcome = answer["outcome"]
    assert outcome == "drawn" or outcome.startswith("refused: "), answer
    assert answer["seconds"] < 1, answer
    assert answer["kilobytes"] < 300_000, answer
    if answer["differs"] and not case.get("seal", True):
        assert outcome != "drawn", "a file with a broken seal was drawn from"
    return answer


def graph(*edits: dict[str, Any]) -> dict[str, Any]:
    filled = [{"index": 0, "value": 0, "text": "", "json": None, **edit} for edit in edits]
    return {"file": "generator.onnx", "seal": True, "graph": filled, "bytes": []}


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=CASES)
def test_mutated_files_are_refused_or_drawn(worker: Worker, case: dict[str, Any]) -> None:
    judged(worker, case)


@pytest.mark.torture
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=CASES)
def test_many_mutated_files_are_refused_or_drawn(worker: Worker, case: dict[str, Any]) -> None:
    judged(worker, case)


@pytest.mark.torture
@pytest.mark.parametrize("family", NAMES)
def test_many_forged_files_are_refused_or_drawn(
    worker: Worker, family: str, tiny_artifact: Path, conv_artifact: Path, default_file: Path
) -> None:
    """At most a second of the processor and 300 MB each, and none ends the process."""
    bases = [tiny_artifact / "generator.onnx", conv_artifact / "generator.onnx", default_file]
    found = Counter[str]()
    seconds, kilobytes = [], []
    for seed in range(200):
        case = {"file": str(bases[seed % len(bases)]), "family": family, "seed": seed}
        answer = judged(worker, case)
        found[answer["outcome"].partition(":")[0]] += 1
        seconds.append(answer["seconds"])
        kilobytes.append(answer["kilobytes"])
    print(f"\n{family}: {dict(found)}, at most {max(seconds):.2f} s, {max(kilobytes) // 1000} MB")
