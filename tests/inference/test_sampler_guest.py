"""A sampler in a host program: threads, forks, pickle, closing. It changes nothing there."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import ArtifactError, Sampler
from inference.model_files.opening import open_generator
from inference.runtime.session import SessionSettings
from tests.support.files import ROOT


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def sampler(tiny_artifact: Path) -> Sampler:
    return Sampler(tiny_artifact, provider="cpu")


def test_sixteen_threads_draw_what_one_draws(sampler: Sampler) -> None:
    whole = sampler.sample(3000, seed=6)
    barrier = threading.Barrier(16)

    def draw(number: int) -> None:
        random = np.random.default_rng(number)
        barrier.wait()
        for _ in range(12):
            first = int(random.integers(0, 2000))
            count = int(random.choice([1, 1, 5, 64, 700]))
            expected = whole[first : first + count]
            np.testing.assert_array_equal(sampler.sample(count, seed=6, start=first), expected)
            z = sampler.latents(count, seed=6, start=first)
            np.testing.assert_array_equal(sampler.decode(z), expected)
            stream = sampler.stream(count, seed=6, start=first, batch_size=33)
            np.testing.assert_array_equal(np.concatenate(list(stream)), expected)

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(draw, number) for number in range(16)]:
            future.result()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_process_goes_on(tiny_artifact: Path, threads: int) -> None:
    """The session's second thread does not exist in the forked process."""
    code = """
import multiprocessing, sys
from inference import Sampler
sampler = Sampler(sys.argv[1], provider="cpu", threads=int(sys.argv[2]))
expected = sampler.sample(600)

def draw():
    global sampler
    assert (sampler.sample(600) == expected).all()
    assert (sampler.sample(1) == expected[:1]).all()
    del sampler

child = multiprocessing.get_context("fork").Process(target=draw, daemon=True)
child.start()
child.join(20)
assert (sampler.sample(600) == expected).all()
print(child.exitcode)
"""
    assert run_python(code, tiny_artifact, threads).stdout == "0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("action", ["del sampler", "sampler.close()", "del sampler, stream"])
def test_a_forked_process_may_let_go_of_what_it_has_not_used(
    tiny_artifact: Path, action: str, threads: int
) -> None:
    code = f"""
import multiprocessing, sys
from inference import Sampler
sampler = Sampler(sys.argv[1], provider="cpu", threads={threads})
expected = sampler.sample(600)
stream = sampler.stream(3000)
next(stream)

def drop():
    global sampler, stream
    {action}

child = multiprocessing.get_context("fork").Process(target=drop, daemon=True)
child.start()
child.join(20)
print(child.exitcode)
assert (sampler.sample(600) == expected).all()
"""
    assert run_python(code, tiny_artifact).stdout == "0\n"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer")
@pytest.mark.parametrize(("count", "threads"), [(1, 1), (100, 1), (3500, 1), (3500, 3)])
def test_a_signal_handler_may_draw_while_its_thread_draws(
    tiny_artifact: Path, count: int, threads: int
) -> None:
    sampler = Sampler(tiny_artifact, provider="cpu", threads=threads)
    expected = sampler.sample(6000, seed=8)
    drawn: list[tuple[int, np.ndarray[Any, Any]]] = []
    depth = 0

    def handler(number: int, frame: Any) -> None:
        nonlocal depth
        if depth == 5:  # on a busy machine, signals would interrupt their handlers without end
            return
        depth += 1
        for size in (1, 70, 600):
            start = len(drawn)
            drawn.append((start, sampler.sample(size, seed=8, start=start)))
        depth -= 1

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
    try:
        while len(drawn) < 1000:
            start = len(drawn)
            images = sampler.sample(count, seed=8, start=start)
            np.testing.assert_array_equal(images, expected[start : start + count])
            images = sampler.decode(sampler.latents(count, seed=8, start=start))
            np.testing.assert_array_equal(images, expected[start : start + count])
            stream = sampler.stream(count, seed=8, start=start, batch_size=900)
            np.testing.assert_array_equal(
                np.concatenate(list(stream)), expected[start : start + count]
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    for start, images in drawn:
        np.testing.assert_array_equal(images, expected[start : start + len(images)])


def test_pickle_carries_it_to_another_process(
    sampler: Sampler, tiny_artifact: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "generator.onnx"
    copy.write_bytes((tiny_artifact / "generator.onnx").read_bytes())
    (tmp_path / "pickled").write_bytes(pickle.dumps(Sampler(copy, provider="cpu")))
    copy.unlink()  # pickle contains the file
    code = """
import pickle, sys, pathlib, numpy
sampler = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
assert sampler.provider == "cpu"
numpy.save(sys.argv[2], sampler.sample(9, seed=3))
"""
    run_python(code, tmp_path / "pickled", tmp_path / "drawn.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "drawn.npy"), sampler.sample(9, seed=3))


def test_a_closed_sampler_says_so(tiny_artifact: Path) -> None:
    with Sampler(tiny_artifact, provider="cpu") as sampler:
        expected = sampler.sample(5)
        stream = sampler.stream(5, batch_size=2)
        np.testing.assert_array_equal(next(stream), expected[:2])
    for use in (
        lambda: sampler.sample(1),
        lambda: sampler.decode(np.zeros((1, 10), np.float32)),
        lambda: sampler.stream(1),
        lambda: next(stream),
        sampler.check,
        lambda: pickle.dumps(sampler),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    sampler.close()  # again
    assert sampler.metadata.dataset == "digits"


HOST = """
import json, logging, os, signal, sys, threading, warnings
import numpy as np
import onnxruntime

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": sys.path,
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
        "numpy errors": np.geterr(),
        "random": str(np.random.get_state()),
        "print options": str(np.get_printoptions()),
        "warnings": str(warnings.filters),
        "root logger": [logging.root.level, len(logging.root.handlers)],
        "threads": len(os.listdir("/proc/self/task")),
        "onnxruntime telemetry and files": sorted(os.listdir(".")),
    }

before = state()
from inference import ArtifactError, ProviderError, Sampler
sampler = Sampler(sys.argv[1])
sampler.sample(600)
list(sampler.stream(30, batch_size=7))
sampler.check()
for bad in (lambda: Sampler(b"no"), lambda: sampler.sample(-1), lambda: Sampler("nowhere")):
    try:
        bad()
    except (ArtifactError, ValueError):
        pass
if sampler.provider == "cpu":
    try:
        Sampler(sys.argv[1], provider="cuda")
    except ProviderError:
        pass
after = state()
for name in before:
    assert before[name] == after[name], (name, before[name], after[name])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_nothing_of_the_process_is_changed_and_nothing_is_printed(tiny_artifact: Path) -> None:
    done = run_python(HOST, tiny_artifact / "generator.onnx")
    assert (done.stdout, done.stderr) == ("", "")


def test_a_first_image_imports_little_that_onnxruntime_does_not(tiny_artifact: Path) -> None:
    """So the first image takes little longer than with bare onnxruntime."""
    code = """
import json, sys
import numpy, onnxruntime
before = set(sys.modules)
from inference import Sampler
Sampler(sys.argv[1], provider="cpu").sample(1)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    modules: list[str] = json.loads(run_python(code, tiny_artifact).stdout)
    later = {"argparse", "concurrent.futures", "logging", "PIL", "zipfile"}
    later |= {"inference.writing.outputs"}
    assert "inference.sampler" in modules
    assert not later & set(modules)
    assert len(modules) < 55


def test_idle_threads_do_not_spin(tiny_artifact: Path) -> None:
    code = """
import sys, time
from inference import Sampler
sampler = Sampler(sys.argv[1], provider="cpu", threads=2)
sampler.sample(600)
begin = time.process_time()
for _ in range(50):
    sampler.sample(16)
    time.sleep(0.01)
print(time.process_time() - begin)
"""
    # The work takes less than 0.05 s. Two threads that spin in the pauses would take up to 1 s.
    assert float(run_python(code, tiny_artifact).stdout) < 0.25


STREAM = """
import sys
from inference import Sampler

def megabytes():
    # Now, and at most. What getrusage says begins with the size of its parent; pages of libraries
    # come and go as the system likes, so that only the others are held to be constant.
    status = open("/proc/self/status").read()
    return [int(status.partition(key)[2].split()[0]) / 1024 for key in ("RssAnon:", "VmHWM:")]

count, sizes, total = int(sys.argv[2]), [], 0
for number, batch in enumerate(Sampler(sys.argv[1], provider="cpu").stream(count)):
    total += len(batch)
    if number % (count // 1024 // 10) == 9:
        sizes.append(megabytes())
assert total == count
print(sizes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("count", [200_000, pytest.param(10_000_000, marks=pytest.mark.full)])
def test_a_stream_takes_constant_memory(tiny_artifact: Path, count: int) -> None:
    sizes: list[list[float]] = json.loads(run_python(STREAM, tiny_artifact, count).stdout)
    assert len(sizes) >= 9
    assert sizes[-1][0] - sizes[0][0] < 1  # MB; the images alone would be 12 MB, or 640
    assert sizes[-1][1] < 100


@pytest.mark.parametrize(
    ("out", "complaint"),
    [
        (np.empty((5, 8, 8), np.float32), r"uint8 array of \(5, 8, 8\), got float32 of"),
        (np.empty((5, 8, 8, 1), np.uint8), r"got uint8 of \(5, 8, 8, 1\)"),
        (np.empty((4, 8, 8), np.uint8), r"got uint8 of \(4, 8, 8\)"),
        ([[0]], "list"),
        (np.frombuffer(bytes(320), np.uint8).reshape(5, 8, 8), "read-only"),
    ],
)
def test_an_array_that_images_cannot_go_into_is_refused(
    sampler: Sampler, out: Any, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        sampler.sample(5, out=out)
    with pytest.raises(ValueError, match=complaint):
        sampler.decode(sampler.latents(5), out=out)


@pytest.mark.parametrize("offset", [0, 1, 39, 40, 600, 3000, 4999])
def test_images_may_be_written_over_their_z(sampler: Sampler, offset: int) -> None:
    """z of 1,000 images takes 40,000 bytes, their pixels take 64,000."""
    z = sampler.latents(1000, seed=4)
    expected = sampler.decode(z)
    memory = np.zeros(110_000, np.uint8)
    over = memory[40_000:80_000].view(np.float32).reshape(1000, 10)
    over[...] = z
    out = memory[offset * 8 : offset * 8 + 64_000].reshape(1000, 8, 8)
    assert np.may_share_memory(over, out)
    np.testing.assert_array_equal(sampler.decode(over, out=out), expected)


def test_images_may_be_written_over_their_labels(conditional_artifact: Path) -> None:
    sampler = Sampler(conditional_artifact, provider="cpu")
    z, labels = sampler.latents(700), np.arange(700) % 10
    expected = sampler.decode(z, labels)
    memory = np.zeros(700 * 64, np.uint8)
    over = memory[-5600:].view(np.int64)
    over[...] = labels
    drawn = sampler.decode(z, over, out=memory.reshape(700, 8, 8))
    np.testing.assert_array_equal(drawn, expected)


def test_images_go_into_any_memory_that_holds_each_pixel_once(sampler: Sampler) -> None:
    expected = sampler.sample(100, seed=2)
    whole = np.empty((100, 16, 24), np.uint8)
    views = (
        whole[:, ::-2, ::-3], whole[::-1, :8, :8], whole[:, 8:, 16:].transpose(0, 2, 1),
        np.empty((8, 100, 8), np.uint8).transpose(1, 0, 2), np.empty((100, 8, 8), np.uint8)[::-1],
    )  # fmt: skip
    for out in views:
        out[...] = 0
        assert sampler.sample(100, seed=2, out=out) is out
        np.testing.assert_array_equal(out, expected)
        out[...] = 0
        np.testing.assert_array_equal(
            sampler.decode(sampler.latents(100, seed=2), out=out), expected
        )


@pytest.mark.parametrize(
    "out",
    [
        np.lib.stride_tricks.as_strided(np.zeros(64, np.uint8), (5, 8, 8), (0, 8, 1)),
        np.lib.stride_tricks.as_strided(np.zeros(400, np.uint8), (5, 8, 8), (32, 8, 1)),
        np.lib.stride_tricks.as_strided(np.zeros(400, np.uint8)[99:], (5, 8, 8), (64, -4, 1)),
    ],
)
def test_memory_that_holds_a_pixel_twice_is_refused(sampler: Sampler, out: Any) -> None:
    for draw in (
        lambda: sampler.sample(5, out=out),
        lambda: sampler.decode(sampler.latents(5), out=out),
    ):
        with pytest.raises(ValueError, match="out must hold each pixel once"):
            draw()


def test_memory_for_no_image_is_taken_whatever_its_strides(sampler: Sampler) -> None:
    empty = np.lib.stride_tricks.as_strided(np.zeros(0, np.uint8), (0, 8, 8), (0, 0, 0))
    for out in (empty, np.zeros((0, 8, 8), np.uint8), np.zeros((4, 8, 8), np.uint8)[4:]):
        assert sampler.sample(0, out=out) is out
        assert sampler.decode(sampler.latents(0), out=out) is out


def test_numbers_of_numpy_are_numbers_and_fractions_are_none(sampler: Sampler) -> None:
    expected = sampler.sample(3, seed=7, start=2**63 - 4)
    numbers: dict[str, Any] = {"seed": np.uint64(7), "start": np.int64(2**63 - 4)}
    np.testing.assert_array_equal(sampler.sample(np.int8(3), **numbers), expected)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"whole numbers, got 2\.5"):
        sampler.sample(2.5)  # type: ignore[call-overload]


def test_an_error_of_the_runtime_is_an_artifact_error(tiny_artifact: Path) -> None:
    generator, _ = open_generator(tiny_artifact, SessionSettings("cpu"), None)
    with pytest.raises(ArtifactError, match="cannot run it"):
        generator.session.run_into(
            {"z": np.zeros((9, 10), np.float32)}, "pixels", np.zeros((9, 9, 9, 1), np.uint8)
        )


def test_interpolation_is_an_arc_with_both_ends(sampler: Sampler) -> None:
    a, b = sampler.latents(2, seed=1)
    z = sampler.interpolate(a, b, 7)
    assert z.shape == (7, 10)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(z[[0, -1]], [a, b])
    unit = a / np.linalg.norm(a), b / np.linalg.norm(b)
    arc = sampler.interpolate(*unit, 7).astype(float)
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), 1, rtol=1e-6)
    angles = np.arccos((arc[1:] * arc[:-1]).sum(1))
    np.testing.assert_allclose(angles, angles[0], rtol=1e-4)  # equal steps
    # Opposite points, where no arc is the shortest, and from zero.
    np.testing.assert_allclose(sampler.interpolate(a, a, 3), [a, a, a], rtol=1e-6)
    np.testing.assert_allclose(sampler.interpolate(a, -a, 3)[1], 0 * a, atol=1e-6)
    np.testing.assert_allclose(sampler.interpolate(0 * a, a, 3)[1], a / 2, rtol=1e-6)
    assert sampler.decode(z).shape == (7, 8, 8)


@pytest.mark.parametrize(
    ("a", "b", "steps", "complaint"),
    [
        (np.zeros(9), np.zeros(10), 3, r"\(10,\), got shapes \(9,\)"),
        (np.zeros((1, 10)), np.zeros(10), 3, r"\(1, 10\)"),
        (np.zeros(10), np.full(10, np.nan), 3, "NaN"),
        (np.zeros(10), np.ones(10), 1, "steps must be 2 or more.* got 1"),
    ],
)
def test_interpolation_says_what_is_wrong(
    sampler: Sampler, a: Any, b: Any, steps: int, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        sampler.interpolate(a, b, steps)
