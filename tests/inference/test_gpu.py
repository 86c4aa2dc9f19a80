"""Generating images on a real GPU: bits of the noise, pixels, threads, memory, other libraries."""

import gc
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
from numpy.typing import NDArray

from inference import ProviderError, Sampler
from inference.command import doctor
from inference.gpu import kernels
from inference.gpu.kernels import Kernels
from inference.gpu.painter import GpuPainter
from inference.noise import labels, latents
from inference.runtime.device import Context, DeviceMemory, PinnedMemory
from inference.runtime.streams import Stream

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
LIMITS = [
    (0, 0),
    (2**32 - 1, 2**32 - 2),
    (2**40 + 9, 2**33 + 1),
    (2**63 - 1, 2**63 - 5000),
]
"""Seeds and starts at which a word of Philox's key or counter overflows."""


def sampler_of(artifact: Path, **settings: Any) -> Sampler:
    try:
        return Sampler(artifact, provider="cuda", **settings)
    except ProviderError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def on_gpu(tiny_artifact: Path) -> Sampler:
    return sampler_of(tiny_artifact)


@pytest.fixture(scope="module")
def conditional(conditional_artifact: Path) -> Sampler:
    return sampler_of(conditional_artifact)


def painter_of(sampler: Sampler) -> GpuPainter:
    painter = sampler._open()
    assert isinstance(painter, GpuPainter)
    return painter


def near(images: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    """At most one grey level apart, and rarely."""
    assert images.shape == expected.shape
    difference = np.abs(images.astype(int) - expected)
    assert difference.max(initial=0) <= 1
    assert (difference > 0).sum() <= max(1e-3 * difference.size, 1)


@pytest.mark.parametrize(("seed", "start"), LIMITS)
@pytest.mark.parametrize(("count", "latent_dim"), [(1, 1), (5, 100), (4999, 7), (33, 1000)])
def test_the_device_draws_the_bits_of_numpy(
    on_gpu: Sampler, seed: int, start: int, count: int, latent_dim: int
) -> None:
    context = Context(0)
    kernel, stream = Kernels(context), Stream(context)
    z, numbers = DeviceMemory(context, 4 * count * latent_dim), DeviceMemory(context, 8 * count)
    drawn = np.empty((count, latent_dim), np.float32)
    found = np.empty(count, np.int64)
    with context:
        kernel.latents(stream, z.handle, count, latent_dim, seed=seed, start=start)
        stream.wait()
        z.read(drawn)
        for classes, label in ((10, None), (2**31 - 1, None), (10, 7)):
            kernel.labels(stream, numbers.handle, count, classes, label, seed=seed, start=start)
            stream.wait()
            numbers.read(found)
            expected = labels(count, classes, seed=seed, start=start)
            np.testing.assert_array_equal(found, expected if label is None else label)
    expected_z = latents(count, latent_dim, seed=seed, start=start)
    np.testing.assert_array_equal(drawn.view(np.uint32), expected_z.view(np.uint32))


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 7, 9), (3, 32, 32), (3, 5, 7)])
def test_the_device_makes_the_pixels_of_numpy(on_gpu: Sampler, shape: tuple[int, int, int]) -> None:
    """Write to memory of the device and of the host, at any address."""
    context = Context(0)
    kernel, stream = Kernels(context), Stream(context)
    images = np.random.default_rng(0).uniform(-1.1, 1.1, (101, *shape)).astype(np.float32)
    levels = ((images + np.float32(1)) * np.float32(127.5)).round().clip(0, 255)
    expected = levels.astype(np.uint8).transpose(0, 2, 3, 1)
    source, target = DeviceMemory(context, images.nbytes), DeviceMemory(context, images.size + 9)
    host = PinnedMemory(context, images.size + 9)
    source.write(images)
    for offset in (0, 1, 4, 7):
        drawn = np.empty(images.size + 9, np.uint8)
        with context:
            for memory in (target, host):
                address = memory.handle + offset
                kernel.pixels(stream, address, source.handle, len(images), shape)
            stream.wait()
            target.read(drawn)
        for found in (drawn, host.array):
            made = found[offset : offset + images.size].reshape(expected.shape)
            np.testing.assert_array_equal(made, expected)


def test_the_device_draws_the_noise_and_small_batches_are_graphs(on_gpu: Sampler) -> None:
    """Images come from kernels and graphs, not from a fallback that gives the same pixels."""
    painter = painter_of(on_gpu)
    assert painter._kernels is not None
    for count in (1, 8, 60, 1024):
        on_gpu.sample(count)
    assert painter.runs.uses_graphs
    (workspace,) = painter._calls._free
    assert {1, 64, 1024} <= workspace.runs.keys()


@pytest.mark.parametrize("count", [0, 1, 7, 64, 65, 1023, 1024, 1025, 8192, 20_000, 70_000])
def test_any_call_is_within_one_level(on_gpu: Sampler, tiny_artifact: Path, count: int) -> None:
    expected = Sampler(tiny_artifact, provider="cpu").sample(count, seed=3, start=5)
    for _ in range(3):
        near(on_gpu.sample(count, seed=3, start=5), expected)
    out = np.empty((count, 8, 8), np.uint8)
    assert on_gpu.sample(count, seed=3, start=5, out=out) is out
    near(out, expected)
    wide = np.zeros((count, 8, 16), np.uint8)
    near(on_gpu.sample(count, seed=3, start=5, out=wide[:, :, ::2]), expected)
    near(on_gpu.decode(on_gpu.latents(count, seed=3, start=5)), expected)
    near(on_gpu.sample(count, seed=3, start=5, device=True).numpy(), expected)
    if count:
        for batch_size in (777, 5000):
            stream = on_gpu.stream(count, seed=3, start=5, batch_size=batch_size)
            near(np.concatenate(list(stream)), expected)


@pytest.mark.parametrize(("seed", "start"), LIMITS)
def test_images_of_extreme_seeds(
    on_gpu: Sampler, tiny_artifact: Path, seed: int, start: int
) -> None:
    on_cpu = Sampler(tiny_artifact, provider="cpu")
    for count in (1, 3000):
        expected = on_cpu.sample(count, seed=seed, start=start)
        near(on_gpu.sample(count, seed=seed, start=start), expected)


def test_single_images_in_any_order(on_gpu: Sampler) -> None:
    expected = on_gpu.sample(300, seed=3)
    for i in np.random.default_rng(0).permutation(300):
        near(on_gpu.sample(1, seed=3, start=i), expected[i : i + 1])


def test_a_call_repeated_gives_the_same_bits(on_gpu: Sampler) -> None:
    for count in (1, 100, 1024, 9000):
        first = on_gpu.sample(count, seed=4)
        for _ in range(5):
            np.testing.assert_array_equal(on_gpu.sample(count, seed=4), first)


def test_golden_images_are_drawn(on_gpu: Sampler, conditional: Sampler) -> None:
    assert on_gpu.check().passed
    assert conditional.check().passed


@pytest.mark.parametrize("count", [1, 100, 9000])
def test_labels_are_drawn_or_given(
    conditional: Sampler, conditional_artifact: Path, count: int
) -> None:
    on_cpu = Sampler(conditional_artifact, provider="cpu")
    near(conditional.sample(count, seed=4), on_cpu.sample(count, seed=4))
    near(conditional.sample(count, seed=4, label=3), on_cpu.sample(count, seed=4, label=3))
    z, numbers = on_cpu.latents(count, seed=4), np.arange(count) % 10
    near(conditional.decode(z, numbers), on_cpu.decode(z, numbers))
    device = conditional.sample(count, seed=4, label=3, device=True)
    near(device.numpy(), on_cpu.sample(count, seed=4, label=3))


def test_convolutions_and_colour(conv_artifact: Path, colour_artifact: Path) -> None:
    for artifact in (conv_artifact, colour_artifact):
        on_cpu, sampler = Sampler(artifact, provider="cpu"), sampler_of(artifact)
        for count in (1, 70, 1500):
            near(sampler.sample(count, seed=2), on_cpu.sample(count, seed=2))
            near(sampler.sample(count, seed=2, device=True).numpy(), on_cpu.sample(count, seed=2))


def test_the_host_draws_the_noise_where_the_device_cannot(
    on_gpu: Sampler, conditional: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "load", lambda context: None)
    for sampler in (on_gpu, conditional):
        other = pickle.loads(pickle.dumps(sampler))
        assert painter_of(other)._kernels is None
        for count in (1, 500, 20_000):
            expected = sampler.sample(count, seed=6)
            near(other.sample(count, seed=6), expected)
            near(other.sample(count, seed=6, device=True).numpy(), expected)


def test_without_graphs_the_images_are_the_same(on_gpu: Sampler, tiny_artifact: Path) -> None:
    plain = sampler_of(tiny_artifact)
    painter_of(plain).runs.uses_graphs = False
    for count in (1, 100, 1000):
        near(plain.sample(count, seed=2), on_gpu.sample(count, seed=2))


def test_sixteen_threads_draw_what_one_draws(on_gpu: Sampler) -> None:
    expected = on_gpu.sample(10_000, seed=3)
    barrier = threading.Barrier(16)

    def draw(number: int) -> None:
        random = np.random.default_rng(number)
        barrier.wait()
        for _ in range(40):
            count = int(random.choice([1, 1, 8, 64, 100, 1000, 5000]))
            first = int(random.integers(0, 10_000 - count))
            part = expected[first : first + count]
            near(on_gpu.sample(count, seed=3, start=first), part)
            if count < 1000:
                near(on_gpu.sample(count, seed=3, start=first, device=True).numpy(), part)
                near(on_gpu.decode(on_gpu.latents(count, seed=3, start=first)), part)

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(draw, number) for number in range(16)]:
            future.result()


def test_two_samplers_and_a_host_on_the_same_device(on_gpu: Sampler, conditional: Sampler) -> None:
    """PyTorch allocates and computes in another thread while graphs are recorded and launched."""
    import torch

    expected = on_gpu.sample(2000), conditional.sample(2000)
    stop = threading.Event()
    errors: list[BaseException] = []

    def host() -> None:
        try:
            while not stop.is_set():
                x = torch.randn(1024, 1024, device="cuda")
                assert torch.isfinite(x @ x).all().item()
                torch.cuda.empty_cache()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=host)
    thread.start()
    try:
        for start in range(0, 1900, 100):
            near(on_gpu.sample(100, start=start), expected[0][start : start + 100])
            near(conditional.sample(90, start=start), expected[1][start : start + 90])
        for sampler, images in zip((on_gpu, conditional), expected, strict=True):
            fresh = pickle.loads(pickle.dumps(sampler))
            for count in (1, 8, 64, 128, 256, 512, 1024, 2000):
                near(fresh.sample(count), images[:count])
    finally:
        stop.set()
        thread.join()
    assert not errors


def test_the_host_keeps_its_current_device(tiny_artifact: Path, on_gpu: Sampler) -> None:
    """A thread's current CUDA context is the same before and after, also if it has none."""
    code = """
import ctypes, sys
from inference import Sampler
driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
def current():
    context = ctypes.c_void_p()
    assert driver.cuCtxGetCurrent(ctypes.byref(context)) == 0
    return context.value
driver.cuInit(0)
sampler = Sampler(sys.argv[1], provider="cuda")
before = current()
for count in (1, 1, 100, 9000):
    sampler.sample(count)
    sampler.sample(count, device=True)
    assert current() == before, count
"""
    run_python(code, tiny_artifact)


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


def test_nothing_is_printed_and_the_process_ends(tiny_artifact: Path, on_gpu: Sampler) -> None:
    code = """
import sys
from inference import Sampler
sampler = Sampler(sys.argv[1])
assert sampler.provider == "cuda:0"
sampler.sample(1); sampler.sample(9000); kept = sampler.sample(9, device=True)
next(sampler.stream(10**7))
Sampler(sys.argv[1]).close()
"""
    done = run_python(code, tiny_artifact)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_forked_process_is_told_and_ends(tiny_artifact: Path, on_gpu: Sampler) -> None:
    code = """
import multiprocessing, sys
from inference import ProviderError, Sampler
sampler = Sampler(sys.argv[1], provider="cuda")
expected = sampler.sample(600)
images = sampler.sample(5, device=True)

def draw():
    global sampler, images
    for use in (lambda: sampler.sample(1), lambda: Sampler(sys.argv[1], provider="cuda")):
        try:
            use()
        except ProviderError as error:
            assert "forked" in str(error), error
        else:
            raise AssertionError("drew in a forked process")
    sampler.close()
    del sampler, images

def drop():
    global sampler, images
    del sampler, images

for action in (draw, drop):
    child = multiprocessing.get_context("fork").Process(target=action, daemon=True)
    child.start()
    child.join(30)
    print(child.exitcode)
assert (sampler.sample(600) == expected).all()
"""
    assert run_python(code, tiny_artifact).stdout == "0\n0\n"


def test_pickle_carries_it_to_another_process(on_gpu: Sampler, tmp_path: Path) -> None:
    (tmp_path / "pickled").write_bytes(pickle.dumps(on_gpu))
    code = """
import pickle, sys, pathlib, numpy
sampler = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
assert sampler.provider == "cuda:0"
numpy.save(sys.argv[2], sampler.sample(900, seed=3))
"""
    run_python(code, tmp_path / "pickled", tmp_path / "drawn.npy")
    near(np.load(tmp_path / "drawn.npy"), on_gpu.sample(900, seed=3))


def test_a_closed_sampler_says_so_and_its_images_stay(tiny_artifact: Path, on_gpu: Sampler) -> None:
    sampler = sampler_of(tiny_artifact)
    images = sampler.sample(2000, seed=1, device=True)
    stream = sampler.stream(10**6)
    next(stream)
    sampler.close()
    for use in (lambda: sampler.sample(1), lambda: list(stream), lambda: pickle.dumps(sampler)):
        with pytest.raises(ValueError, match="closed"):
            use()
    near(images.numpy(), on_gpu.sample(2000, seed=1))


MEMORY = """
import sys
from inference import Sampler
from inference.runtime.driver import functions
import ctypes

def device():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver = ctypes.CDLL("libcuda.so.1")
    with sampler._open()._context:
        assert driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    return (total.value - free.value) / 2**20

def host():
    status = open("/proc/self/status").read()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024

sampler, sizes = Sampler(sys.argv[1], provider="cuda"), []
for number, batch in enumerate(sampler.stream(3_000_000)):
    if number % 250 == 249:
        sizes.append((host(), device()))
for number in range(400):
    sampler.sample(1 + number * 37 % 1024)
    sampler.sample(9000, device=True)
    if number % 100 == 99:
        sizes.append((host(), device()))
print(sizes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stream_takes_constant_memory(tiny_artifact: Path, on_gpu: Sampler) -> None:
    sizes = eval(run_python(MEMORY, tiny_artifact).stdout)  # a list of pairs
    streamed, called = sizes[:-4], sizes[-4:]
    assert streamed[-1][0] - streamed[1][0] < 4  # MB; the images alone are 192 MB
    assert streamed[-1][1] - streamed[1][1] < 32
    assert called[-1][0] - called[1][0] < 4
    assert called[-1][1] - called[1][1] < 32


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer")
def test_a_signal_handler_may_draw_while_its_thread_draws(tiny_artifact: Path) -> None:
    sampler = sampler_of(tiny_artifact)
    expected = Sampler(tiny_artifact, provider="cpu").sample(20_000, seed=8)
    drawn: list[tuple[int, NDArray[np.uint8]]] = []

    def handler(number: int, frame: Any) -> None:
        start = len(drawn)
        drawn.append((start, sampler.sample(5, seed=8, start=start)))
        start = len(drawn)
        drawn.append((start, sampler.sample(1100, seed=8, start=start)))

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.01)
    try:
        while len(drawn) < 300:
            for count in (1, 60, 9000):
                start = len(drawn)
                images = sampler.sample(count, seed=8, start=start)
                near(images, expected[start : start + count])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    for start, images in drawn:
        near(images, expected[start : start + len(images)])


def test_pytorch_takes_images_without_a_copy(on_gpu: Sampler) -> None:
    import torch

    expected = on_gpu.sample(500, seed=2)
    images = on_gpu.sample(500, seed=2, device=True)
    place = images.__cuda_array_interface__["data"][0]
    for tensor in (torch.utils.dlpack.from_dlpack(images), torch.as_tensor(images, device="cuda")):
        assert tensor.dtype == torch.uint8
        assert tensor.device == torch.device("cuda", 0)
        assert tensor.data_ptr() == place
        near(tensor.cpu().numpy(), expected)
    tensor = torch.utils.dlpack.from_dlpack(images)
    del images
    gc.collect()
    others = [on_gpu.sample(500, seed=9, start=500 * i, device=True) for i in range(5)]
    assert place not in {other.__cuda_array_interface__["data"][0] for other in others}
    near(tensor.cpu().numpy(), expected)  # the memory lives as long as the tensor
    del tensor
    assert len(others) == 5


def test_memory_is_not_reused_while_pytorch_works_on_it(on_gpu: Sampler) -> None:
    import torch

    for start in range(20):
        images = torch.utils.dlpack.from_dlpack(on_gpu.sample(4096, start=start, device=True))
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            torch.cuda._sleep(20_000_000)
            copied = images.clone()
        del images  # while the copy is waiting
        on_gpu.sample(4096, seed=99, start=start, device=True)
        side.synchronize()
        near(copied.cpu().numpy(), on_gpu.sample(4096, start=start))


def test_cupy_takes_images_without_a_copy(on_gpu: Sampler) -> None:
    cupy = pytest.importorskip("cupy")
    images = on_gpu.sample(500, seed=2, device=True)
    for array in (cupy.from_dlpack(images), cupy.asarray(images)):
        assert array.data.ptr == images.__cuda_array_interface__["data"][0]
        near(cupy.asnumpy(array), on_gpu.sample(500, seed=2))


def test_jax_takes_images_without_a_copy(on_gpu: Sampler, tiny_artifact: Path) -> None:
    pytest.importorskip("jax")
    code = """
import os, sys
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
import jax, numpy
from inference import Sampler
if jax.default_backend() != "gpu":
    print("no GPU")
    sys.exit()
sampler = Sampler(sys.argv[1], provider="cuda")
images = sampler.sample(500, seed=2, device=True)
array = jax.dlpack.from_dlpack(images)
assert array.unsafe_buffer_pointer() == images.__cuda_array_interface__["data"][0]
numpy.save(sys.argv[2], numpy.asarray(array))
"""
    path = tiny_artifact.parent / "jax.npy"
    if run_python(code, tiny_artifact, path).stdout.startswith("no GPU"):
        pytest.skip("JAX here has no GPU")
    near(np.load(path), on_gpu.sample(500, seed=2))


def test_tf32_is_near(on_gpu: Sampler, tiny_artifact: Path) -> None:
    rounded = sampler_of(tiny_artifact, tf32=True).sample(5000).astype(int)
    difference = np.abs(rounded - on_gpu.sample(5000))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.05


def test_a_device_that_is_not_there_is_refused(tiny_artifact: Path, on_gpu: Sampler) -> None:
    with pytest.raises(ProviderError, match="there is no CUDA device 99, this machine shows"):
        Sampler(tiny_artifact, provider="cuda:99")


def test_another_device_draws_too(tiny_artifact: Path, on_gpu: Sampler) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device only")
    sampler = Sampler(tiny_artifact, provider="cuda:1")
    for count in (1, 5000):
        near(sampler.sample(count), on_gpu.sample(count))
    images = sampler.sample(9, device=True)
    assert torch.utils.dlpack.from_dlpack(images).device == torch.device("cuda", 1)


def test_the_doctor_sees_it(on_gpu: Sampler) -> None:
    report = doctor.examine()["cuda"]
    assert report["problem"] is None
    assert report["devices"][0]["memory_bytes"] > 2**30


def test_the_graphs_of_a_sampler_go_with_it(tiny_artifact: Path, on_gpu: Sampler) -> None:
    """Samplers that are made and dropped in turn release all their memory."""
    code = """
import ctypes, gc, sys
from inference import Sampler
driver = ctypes.CDLL("libcuda.so.1")
first = Sampler(sys.argv[1], provider="cuda")
def used():
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    with first._open()._context:
        assert driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
    return (total.value - free.value) / 2**20
sizes = []
for _ in range(6):
    with Sampler(sys.argv[1], provider="cuda") as sampler:
        for count in (1, 100, 9000):
            sampler.sample(count)
    del sampler
    gc.collect()
    sizes.append(used())
print(sizes[-1] - sizes[1])
"""
    assert float(run_python(code, tiny_artifact).stdout) < 64
