"""Load on the HTTP service: `python -m benchmarks.http_service runs/demo/artifact`.

The service is compared with bare uvicorn, whose application only sends the same bytes. wrk keeps
its connections busy on the loopback; each request is for another seed. Writes
benchmarks/results/http-service-2-cores.json, or `--output`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

ROOT = Path(__file__).parents[1]

# wrk's one thread counts the seeds, so that no two requests are the same.  {query}: other options.
_SCRIPT = """
local seed = 0
request = function()
  seed = seed + 1
  return wrk.format("GET", "/images?seed=" .. seed .. "&{query}")
end
done = function(summary, latency)
  local errors = summary.errors
  local figures = '{{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, ' ..
    '"worst_ms": %f, "refused": %d, "broken": %d}}'
  io.write("\\n" .. string.format(figures,
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
"""

_BARE = """
import sys
import uvicorn

body = sys.stdin.buffer.read()
headers = [(b"content-type", b"image/png"), (b"content-length", str(len(body)).encode())]


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


uvicorn.run(app, port=0, access_log=False, lifespan="off")
"""


@dataclass(frozen=True)
class Load:
    """The result of keeping some connections busy."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    refused: int
    """Answers with status 400 or above."""
    broken: int
    """Connections that failed, and answers that did not come within 2 seconds."""

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds


def put_load_on(address: str, query: str, *, connections: int, seconds: int) -> Load:
    """Run wrk against the service at an address."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise FileNotFoundError("wrk is not installed: apt-get install wrk, or brew install wrk")
    with NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT.format(query=query))
        script.flush()
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name, address]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=seconds + 30
        )
    return Load(**json.loads(done.stdout.splitlines()[-1]))


@contextmanager
def service(artifact: Path, *options: str) -> Iterator[tuple[str, int]]:
    """Start the service on a free port of the loopback; gives its address and process id."""
    command = ["-m", "examples.http_service", str(artifact), "--port", "0", "--provider", "cpu"]
    with _server([*command, *options], b"") as found:
        yield found


@contextmanager
def bare(body: bytes) -> Iterator[tuple[str, int]]:
    """Start bare uvicorn, which sends `body`."""
    with _server(["-c", _BARE], body) as found:
        yield found


@contextmanager
def _server(arguments: list[str], standard_input: bytes) -> Iterator[tuple[str, int]]:
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        process.stdin.write(standard_input)
        process.stdin.close()
        said = b""
        for line in process.stderr:
            said += line
            if b"running on " in line:
                yield line.partition(b"running on ")[2].split()[0].decode(), process.pid
                break
        else:
            raise RuntimeError(f"the server did not start: {said.decode()}")
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


def resident_mib(process_id: int) -> float:
    """Resident memory of a process in MiB (Linux)."""
    status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--seconds", type=int, default=15, help="of each measurement")
    parser.add_argument("--connections", type=int, default=32)
    output = ROOT / "benchmarks" / "results" / "http-service-2-cores.json"
    parser.add_argument("--output", type=Path, default=output)
    options = parser.parse_args()
    rows = []
    for query in ("count=1&format=png", "count=64&format=npy", "count=64&format=png"):
        with service(options.artifact) as (address, process_id):
            with urllib.request.urlopen(f"{address}/images?seed=1&{query}") as response:
                body = response.read()
            put = {"connections": options.connections, "seconds": options.seconds}
            ours = put_load_on(address, query, **put)
            memory = resident_mib(process_id)
        with bare(body) as (address, _):
            plain = put_load_on(address, query, **put)
        for name, load in (("service", ours), ("bare uvicorn", plain)):
            row = {"server": name, "query": query, "bytes": len(body), **asdict(load)}
            rows.append(row | {"requests_per_second": round(load.requests_per_second)})
            print(
                f"{query:20} {name:13} {load.requests_per_second:7,.0f} requests/s, "
                f"p50 {load.p50_ms:.1f} ms, p99 {load.p99_ms:.1f} ms, "
                f"{load.refused} refused, {load.broken} broken"
            )
        rows[-2]["resident_mib"] = round(memory)
    import torch

    from inference.runtime.session import version as onnxruntime_version
    from training.engine.machine import describe_machine
    from training.run_folder.origin import package_versions

    machine = describe_machine(torch.device("cpu")) | package_versions("uvicorn", "fastapi")
    machine["onnxruntime"] = onnxruntime_version()
    content = {"machine": machine, "connections": options.connections, "rows": rows}
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
