"""The HTTP service under load, and with unexpected requests."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from benchmarks.http_service import put_load_on, resident_mib, service
from tests.support.waiting import wait_for

pytest.importorskip("fastapi")

needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is not installed: apt-get install wrk"
)


@pytest.mark.full
def test_random_requests_get_nothing_but_2xx_and_4xx(golden_artifact: Path, tmp_path: Path) -> None:
    """Run schemathesis with all its checks against the service's OpenAPI document."""
    pytest.importorskip("schemathesis")
    har = tmp_path / "requests.har"
    with service(golden_artifact) as (address, _):
        tool = str(Path(sys.executable).with_name("schemathesis"))
        command = [tool, "run", f"{address}/openapi.json", "--checks", "all", "--seed", "9"]
        command += ["--max-examples", "500", "--warnings", "off", "--report-har-path", str(har)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False
        )
    assert done.returncode == 0, done.stdout
    entries = json.loads(har.read_text(encoding="utf-8"))["log"]["entries"]
    statuses = Counter(entry["response"]["status"] for entry in entries)
    print(dict(statuses))
    assert all(status // 100 in {2, 4} for status in statuses)
    assert statuses[200] > 100
    assert statuses[422] > 100


def answers(url: str) -> bool:
    """Whether the service has room for a request."""
    try:
        with urllib.request.urlopen(url, timeout=20):
            return True
    except urllib.error.HTTPError as error:
        if error.code != 429:
            raise
        return False


@contextmanager
def memory_of(process_id: int, every: float) -> Iterator[list[float]]:
    """Measure the memory of a process repeatedly, in MiB."""
    seen, over = [], threading.Event()

    def look() -> None:
        while not over.wait(every):
            seen.append(resident_mib(process_id))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def saturate(artifact: Path, seconds: int) -> None:
    """With all connections busy, there is no error, and memory does not grow."""
    with service(artifact) as (address, process_id):
        # Warm up, so that buffers and threads exist.
        put_load_on(address, "count=64&format=png", connections=64, seconds=5)
        with memory_of(process_id, every=seconds / 20) as seen:
            load = put_load_on(address, "count=64&format=png", connections=64, seconds=seconds)
    print(f"{load}, memory {min(seen):.0f} to {max(seen):.0f} MiB")
    assert (load.refused, load.broken) == (0, 0)
    assert load.requests > 10 * seconds
    third = len(seen) // 3
    assert max(seen[-third:]) < max(seen[:third]) + 16
    assert max(seen) < 600


@pytest.mark.full
def test_hostile_connections_neither_stall_it_nor_fill_its_memory(golden_artifact: Path) -> None:
    """Endless headers and idle connections, more than it takes, and a client that only asks."""
    over = threading.Event()

    def send_a_header_without_end(address: tuple[str, int]) -> None:
        while not over.is_set():
            with suppress(OSError), socket.create_connection(address, 5) as client:
                client.sendall(b"GET / HTTP/1.1\r\nA: ")
                while not over.is_set():
                    client.sendall(b"a" * 65536)

    with service(golden_artifact, "--most-connections", "100") as (address, process_id):
        assert answers(f"{address}/images?count=64")  # warm
        before = resident_mib(process_id)
        host, _, port = address.removeprefix("http://").partition(":")
        place = host, int(port)
        threads = [
            threading.Thread(target=send_a_header_without_end, args=[place]) for _ in range(30)
        ]
        with ExitStack() as idle:
            for thread in threads:
                thread.start()
            for _ in range(200):
                idle.enter_context(socket.create_connection(place, 5))
            waited = []
            for seed in range(20):
                began = time.monotonic()
                assert answers(f"{address}/images?seed={seed}&count=1")
                waited.append(time.monotonic() - began)
            after = resident_mib(process_id)
            over.set()
            for thread in threads:
                thread.join()
    print(f"longest wait {max(waited):.2f} s, memory {before:.0f} to {after:.0f} MiB")
    assert max(waited) < 2
    assert after < before + 30


@needs_wrk
@pytest.mark.full
def test_a_few_seconds_of_saturation(golden_artifact: Path) -> None:
    saturate(golden_artifact, 15)


@needs_wrk
@pytest.mark.torture
def test_five_minutes_of_saturation(golden_artifact: Path) -> None:
    saturate(golden_artifact, 300)


@needs_wrk
@pytest.mark.full
def test_more_than_it_can_take_is_refused_and_nothing_breaks(golden_artifact: Path) -> None:
    with service(golden_artifact, "--most-waiting", "1024") as (address, _):
        load = put_load_on(address, "count=512&format=png", connections=32, seconds=5)
        # Images of callers who have gone are still generated. Until then, there is no room.
        wait_for(lambda: answers(f"{address}/images?count=1024"))
        after = put_load_on(address, "count=1&format=png", connections=1, seconds=1)
    print(load)
    assert load.broken == 0
    assert 0 < load.refused < load.requests
    assert (after.refused, after.broken) == (0, 0)
    assert after.requests > 50
