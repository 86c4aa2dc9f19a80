"""What the sampler costs a host: time and memory of new processes, and the size of the wheel."""

import io
import json
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

BASE = "onnxruntime"

_ROOT = Path(__file__).parents[1]
_BEGIN = "import sys, time; begin = time.perf_counter()\n"
# Only this process counts. (getrusage starts with the size of the parent process.)
_MEGABYTES = """
def megabytes():
    try:
        status = open("/proc/self/status").read()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except OSError:
        import resource
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
"""
_FIRST = {
    BASE: """
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(
    sys.argv[1], options, providers=["CPUExecutionProvider"]
)
z = np.random.default_rng(0).standard_normal((1, session.get_inputs()[0].shape[1]), np.float32)
session.run(["pixels"], {"z": z})
""",
    "sampler": """
from inference import Sampler
Sampler(sys.argv[1], provider="cpu").sample(1)
""",
    "sampler, provider=auto": """
from inference import Sampler
Sampler(sys.argv[1]).sample(1)
""",
}
_END = "\ntaken = time.perf_counter() - begin\n" + _MEGABYTES + "print([taken, megabytes()])\n"
_STREAM = """
from inference import Sampler
sizes, done, count, size = [], 0, int(sys.argv[2]), int(sys.argv[4])
sampler = Sampler(sys.argv[1], provider=sys.argv[3])
sampler.sample(size)
begin = time.perf_counter()
for batch in sampler.stream(count, batch_size=size):
    done += len(batch)
    if done * 10 >= count * (len(sizes) + 1):
        sizes.append(megabytes())
print([count / (time.perf_counter() - begin), sizes])
"""


def first_images(model: Path, times: int) -> dict[str, dict[str, float]]:
    """Milliseconds from the first import to the first image, and megabytes at that time."""
    found: dict[str, list[list[float]]] = {name: [] for name in _FIRST}
    for number in range(times + 1):
        for name, code in _FIRST.items():
            taken = json.loads(_run_python(_BEGIN + code + _END, model))
            if number:  # the first process reads from the disk
                found[name].append(taken)
    base = [seconds for seconds, _ in found[BASE]]
    return {
        name: {
            "ms": 1e3 * statistics.median(seconds for seconds, _ in each),
            "megabytes": statistics.median(size for _, size in each),
            "times_onnxruntime": statistics.median(
                seconds / b for (seconds, _), b in zip(each, base, strict=True)
            ),
        }
        for name, each in found.items()
    }


def stream(
    model: Path, count: int, provider: str = "cpu", batch_size: int = 1024
) -> dict[str, Any]:
    """Images per second, and the peak memory in MB after each tenth of the images."""
    rate, sizes = json.loads(
        _run_python(_BEGIN + _MEGABYTES + _STREAM, model, count, provider, batch_size)
    )
    return {"images": count, "images_per_second": rate, "megabytes": sizes}


def wheel_bytes() -> int:
    """Bytes of a wheel of `inference`, without the few lines of metadata of the build tool.

    The build tool is not installed everywhere, so the files are packed here in the same way.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((_ROOT / "inference").rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(_ROOT))
        for name in ("README.md", "LICENSE"):
            archive.write(_ROOT / name, name)
    return packed.getbuffer().nbytes


def _run_python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=_ROOT)
    return done.stdout.splitlines()[-1]
