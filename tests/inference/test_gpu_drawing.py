"""Generating images on a fake GPU: which work is put on the stream, and in which order.

`fake_cuda` does the work on a stream only when somebody waits for the stream. Tests on a real GPU
are in `test_gpu.py`.
"""

import ctypes
import gc
import logging
import os
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference import ProviderError, Sampler
from inference.gpu import device_images, tiling
from inference.gpu.network_runs import NetworkRuns
from inference.gpu.painter import GpuPainter
from inference.model_files import own
from tests.support import fake_cuda
from tests.support.fake_cuda import FakeDriver, FakeRuntime

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def nvidia(loaded: dict[str, Any], runtime: FakeRuntime) -> FakeDriver:
    played: FakeDriver = loaded["libcuda.so.1"]
    return played


def on_gpu(artifact: Path, tile: int = 16384, **settings: Any) -> Sampler:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(own.TILES, "cuda", tile)  # small tiles show the same in less time
        sampler = Sampler(artifact, provider="cuda", **settings)
    assert isinstance(sampler._open(), GpuPainter)
    return sampler


@pytest.mark.parametrize("count", [0, 1, 2, 9, 64, 1024, 1025, 3000, 9001])
def test_any_number_of_images_is_what_the_processor_draws(
    nvidia: FakeDriver, tiny_artifact: Path, count: int
) -> None:
    expected = Sampler(tiny_artifact, provider="cpu").sample(count, seed=2**40 + 9, start=2**33)
    sampler = on_gpu(tiny_artifact, tile=2048)
    for _ in range(2):
        drawn = sampler.sample(count, seed=2**40 + 9, start=2**33)
        np.testing.assert_array_equal(drawn, expected)
    z = sampler.latents(count, seed=2**40 + 9, start=2**33)
    np.testing.assert_array_equal(sampler.decode(z), expected)
    np.testing.assert_array_equal(sampler.decode(z.astype(np.float64)), expected)
    for batch_size in (1, 700, 5000):
        if count < 100 or batch_size > 1:
            stream = sampler.stream(count, seed=2**40 + 9, start=2**33, batch_size=batch_size)
            batches = list(stream)
            assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
            np.testing.assert_array_equal(np.concatenate([expected[:0], *batches]), expected)
    device = sampler.sample(count, seed=2**40 + 9, start=2**33, device=True)
    assert device.shape == expected.shape
    np.testing.assert_array_equal(device.numpy(), expected)


@given(
    first=st.integers(0, 9),
    count=st.integers(1, 200_000),
    largest=st.sampled_from([1, 5, 64, 167, 1000, 1024, 1500, 16384]),
    ends_small=st.booleans(),
)
def test_tiles_cover_each_image_once(
    first: int, count: int, largest: int, ends_small: bool
) -> None:
    allowed = tiling.batch_sizes(largest)
    tiles = tiling.tiles(slice(first, first + count), allowed, ends_small=ends_small)
    assert [tile.start for tile in tiles] == [first, *(tile.stop for tile in tiles[:-1])]
    assert tiles[-1].stop == first + count
    sizes = [tile.stop - tile.start for tile in tiles]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) <= largest
    assert all(size in allowed for size in sizes if size > 1024)
    if ends_small:
        assert sizes[-1] <= max(1024, largest // 2)


def test_out_may_have_any_strides(nvidia: FakeDriver, tiny_artifact: Path) -> None:
    expected = Sampler(tiny_artifact, provider="cpu").sample(3000, seed=1)
    sampler = on_gpu(tiny_artifact, tile=1024)
    wide = np.zeros((3000, 8, 16), np.uint8)
    sampler.sample(3000, seed=1, out=wide[:, :, ::2])
    np.testing.assert_array_equal(wide[:, :, ::2], expected)
    assert not wide[:, :, 1::2].any()


@pytest.mark.parametrize("count", [5, 2500])
def test_labels_are_drawn_or_given(
    nvidia: FakeDriver, conditional_artifact: Path, count: int
) -> None:
    on_cpu = Sampler(conditional_artifact, provider="cpu")
    sampler = on_gpu(conditional_artifact, tile=1024)
    np.testing.assert_array_equal(sampler.sample(count, seed=4), on_cpu.sample(count, seed=4))
    threes = on_cpu.sample(count, seed=4, label=3)
    np.testing.assert_array_equal(sampler.sample(count, seed=4, label=3), threes)
    z, labels = on_cpu.latents(count, seed=4), np.arange(count) % 10
    np.testing.assert_array_equal(sampler.decode(z, labels), on_cpu.decode(z, labels))
    device = sampler.sample(count, seed=4, label=3, device=True)
    np.testing.assert_array_equal(device.numpy(), threes)


@pytest.mark.parametrize("failing", [{"cuModuleLoadData": 222}, {"cuModuleGetFunction": 500}])
def test_the_host_draws_the_noise_where_the_device_cannot(
    loaded: dict[str, Any],
    runtime: FakeRuntime,
    conditional_artifact: Path,
    caplog: pytest.LogCaptureFixture,
    failing: dict[str, int],
) -> None:
    caplog.set_level(logging.INFO)
    loaded["libcuda.so.1"] = FakeDriver(failing=failing)
    on_cpu = Sampler(conditional_artifact, provider="cpu")
    sampler = Sampler(conditional_artifact, provider="cuda", threads=2)
    for count in (3, 9000):
        drawn = sampler.sample(count, seed=4, start=7)
        np.testing.assert_array_equal(drawn, on_cpu.sample(count, seed=4, start=7))
        drawn = sampler.sample(count, seed=4, start=7, label=2, device=True).numpy()
        np.testing.assert_array_equal(drawn, on_cpu.sample(count, seed=4, start=7, label=2))
    (record,) = caplog.records
    ((name, code),) = failing.items()
    assert record.name == "inference"
    assert "drawing the noise on the host" in record.getMessage()
    assert f"{name} says {code}, CUDA_ERROR" in record.getMessage()


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_kernels_that_draw_other_images_than_the_golden_ones_are_not_used(
    nvidia: FakeDriver,
    conditional_artifact: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kernel: int,
) -> None:
    """If a device computes wrong z, labels or pixels, the host draws the noise."""
    caplog.set_level(logging.INFO)
    types, items, right = fake_cuda.KERNELS[kernel]

    def wrong(out: int, *others: int) -> None:
        right(out, *others)
        if kernel == 1:  # z
            (ctypes.c_float * 5).from_address(out)[:] = [4.0] * 5
        elif kernel == 2:
            label = ctypes.c_int64.from_address(out)
            label.value = (label.value + 5) % 10
        else:
            ctypes.c_uint8.from_address(out).value += 3

    monkeypatch.setitem(fake_cuda.KERNELS, kernel, (types, items, wrong))
    sampler = Sampler(conditional_artifact, provider="cuda")
    expected = Sampler(conditional_artifact, provider="cpu").sample(70)
    for count in (1, 70):
        np.testing.assert_array_equal(sampler.sample(count), expected[:count])
    (record,) = caplog.records
    assert "computes wrong images with the kernels" in record.getMessage()


@pytest.mark.parametrize(
    "failing", [{"cuGraphInstantiateWithFlags": 801}, {"cuStreamEndCapture": 901}]
)
def test_without_graphs_the_images_are_the_same_and_the_log_says_so_once(
    loaded: dict[str, Any],
    runtime: FakeRuntime,
    tiny_artifact: Path,
    caplog: pytest.LogCaptureFixture,
    failing: dict[str, int],
) -> None:
    caplog.set_level(logging.INFO)
    nvidia = loaded["libcuda.so.1"] = FakeDriver(failing=failing)
    sampler = Sampler(tiny_artifact, provider="cuda")
    expected = Sampler(tiny_artifact, provider="cpu").sample(70)
    for count in (1, 70, 1, 70):
        np.testing.assert_array_equal(sampler.sample(count), expected[:count])
    (record,) = caplog.records
    assert "without CUDA graphs" in record.getMessage()
    assert "graph" not in nvidia.launched


def test_a_graph_that_calls_the_host_is_not_used(
    nvidia: FakeDriver, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def host_node(self: FakeDriver, node: int, kind: Any) -> None:
        kind._obj.value = 3

    monkeypatch.setattr(FakeDriver, "do_cuGraphNodeGetType", host_node)
    sampler = Sampler(tiny_artifact, provider="cuda")
    sampler.sample(1)
    sampler.sample(1)
    assert "graph" not in nvidia.launched


def test_small_batches_go_through_graphs_of_a_few_sizes(
    nvidia: FakeDriver, tiny_artifact: Path
) -> None:
    sampler = Sampler(tiny_artifact, provider="cuda")
    nvidia.launched.clear()  # what generated the golden images
    for count in range(1, 65):
        sampler.sample(count)
    assert len(nvidia.graphs) == 2  # 1 and 64
    assert nvidia.launched.count("graph") == 64
    sampler.sample(9000)
    assert nvidia.launched.count("graph") == 64 + 5  # of 4,096, 2,048, 1,024 twice and 1,024


def test_threads_share_a_bounded_number_of_buffers(nvidia: FakeDriver, tiny_artifact: Path) -> None:
    expected = Sampler(tiny_artifact, provider="cpu").sample(4000, seed=6)
    sampler = on_gpu(tiny_artifact, tile=1024)
    barrier = threading.Barrier(16)

    def draw(number: int) -> None:
        barrier.wait()
        for count in (1, 700, 3000, 5):
            first = 50 * number
            drawn = sampler.sample(count, seed=6, start=first)
            np.testing.assert_array_equal(drawn, expected[first : first + count])

    with ThreadPoolExecutor(16) as pool:
        for future in [pool.submit(draw, number) for number in range(16)]:
            future.result()
    assert 1 <= len(nvidia.pinned) <= 4  # of four calls


@pytest.mark.parametrize("count", [1, 100, 5000])
def test_memory_is_used_again(nvidia: FakeDriver, tiny_artifact: Path, count: int) -> None:
    sampler = on_gpu(tiny_artifact, tile=1024)
    sizes = []
    for start in range(5):
        sampler.sample(count, start=start)
        sampler.sample(count, start=start, device=True)
        sizes.append((len(nvidia.memory), len(nvidia.pinned), len(nvidia.streams)))
    assert sizes[-1] == sizes[0]


def test_what_a_sampler_took_is_given_back(nvidia: FakeDriver, tiny_artifact: Path) -> None:
    gc.disable()  # by reference counts alone, without the garbage collector
    try:
        sampler = Sampler(tiny_artifact, provider="cuda")
        for count in (1, 100, 9000):
            sampler.sample(count)
        images = sampler.sample(5, device=True)
        sampler.close()
        assert (len(nvidia.memory), len(nvidia.pinned), nvidia.graphs) == (1, 0, {})
        expected = Sampler(tiny_artifact, provider="cpu").sample(5)
        np.testing.assert_array_equal(images.numpy(), expected)
        del images
        assert not nvidia.memory
    finally:
        gc.enable()


def test_images_that_others_have_seen_are_waited_for(
    nvidia: FakeDriver, tiny_artifact: Path
) -> None:
    """Another library may have started work on the images without waiting for it."""
    sampler = Sampler(tiny_artifact, provider="cuda")
    first = sampler.sample(100, device=True)
    place = first._memory.handle
    del first
    second = sampler.sample(100, device=True)
    assert second._memory.handle == place
    assert "synchronize" not in nvidia.launched
    assert second.__cuda_array_interface__["data"] == (place, False)
    del second
    third = sampler.sample(100, device=True)
    assert third._memory.handle == place
    assert nvidia.launched.count("synchronize") == 1


def test_a_dlpack_capsule_shares_its_memory_and_keeps_it(
    nvidia: FakeDriver, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For numpy, which only looks at the type of the device."""
    expected = Sampler(tiny_artifact, provider="cpu").sample(100)
    sampler = Sampler(tiny_artifact, provider="cuda")
    images = sampler.sample(100, device=True)
    assert images.__dlpack_device__() == (2, 0)
    assert (len(images), images.device, images.nbytes) == (100, "cuda:0", 6400)
    with pytest.raises(BufferError, match="without a copy"):
        images.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="not on"):
        images.__dlpack__(dl_device=(1, 0))
    monkeypatch.setattr(device_images, "CUDA", 1)
    for _ in range(3):
        images.__dlpack__()  # which nobody takes
    assert not device_images._handed_over
    array = np.from_dlpack(images)
    assert array.ctypes.data == images._memory.handle
    np.testing.assert_array_equal(array, expected)
    del images
    sampler.sample(100, seed=1, device=True)
    view = array[3:]
    del array
    np.testing.assert_array_equal(view, expected[3:])
    assert len(device_images._handed_over) == 1
    del view
    assert not device_images._handed_over


def test_a_device_without_memory_is_a_memory_error(
    loaded: dict[str, Any], runtime: FakeRuntime, tiny_artifact: Path
) -> None:
    nvidia = loaded["libcuda.so.1"]
    sampler = Sampler(tiny_artifact, provider="cuda")
    sampler.sample(100, device=True)
    nvidia.full = True
    with pytest.raises(MemoryError, match="cuMemAlloc_v2 says 2"):
        sampler.sample(200, device=True)
    nvidia.full = False
    assert len(sampler.sample(200, device=True)) == 200


def test_device_arrays_are_refused_where_there_is_no_device(tiny_artifact: Path) -> None:
    sampler = Sampler(tiny_artifact, provider="cpu")
    with pytest.raises(ValueError, match=r"device=True needs .* CUDA, this one is on the CPU"):
        sampler.sample(1, device=True)


def test_device_arrays_take_no_out(nvidia: FakeDriver, tiny_artifact: Path) -> None:
    sampler = Sampler(tiny_artifact, provider="cuda")
    arguments: dict[str, Any] = {"out": np.empty((1, 8, 8), np.uint8), "device": True}
    with pytest.raises(ValueError, match="leave out `out`"):
        sampler.sample(1, **arguments)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer")
@pytest.mark.parametrize("count", [3, 3000])
def test_a_signal_handler_may_draw_while_its_thread_draws(
    nvidia: FakeDriver, tiny_artifact: Path, count: int
) -> None:
    expected = Sampler(tiny_artifact, provider="cpu").sample(6000, seed=8)
    sampler = on_gpu(tiny_artifact, tile=1024)
    drawn: list[tuple[int, np.ndarray[Any, Any]]] = []

    def handler(number: int, frame: Any) -> None:
        if nvidia.busy:
            return
        start = len(drawn)
        drawn.append((start, sampler.sample(5, seed=8, start=start)))
        start = len(drawn)
        drawn.append((start, sampler.sample(1100, seed=8, start=start)))

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.02)
    try:
        while len(drawn) < 40:
            start = len(drawn)
            images = sampler.sample(count, seed=8, start=start)
            np.testing.assert_array_equal(images, expected[start : start + count])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    for start, images in drawn:
        np.testing.assert_array_equal(images, expected[start : start + len(images)])


@pytest.mark.skipif(not hasattr(os, "kill"), reason="no signals")
def test_a_signal_handler_may_draw_while_a_graph_is_recorded(
    nvidia: FakeDriver, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Sampler(tiny_artifact, provider="cpu").sample(100, seed=8)
    sampler = Sampler(tiny_artifact, provider="cuda")
    drawn: list[np.ndarray[Any, Any]] = []
    bind = NetworkRuns.bind

    def signalling(self: NetworkRuns, *arguments: Any) -> Any:
        run = bind(self, *arguments)

        def run_and_signal() -> None:
            if nvidia.captures and not drawn:
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(0.05)
            run()

        return run_and_signal

    monkeypatch.setattr(NetworkRuns, "bind", signalling)
    previous = signal.signal(
        signal.SIGUSR1, lambda number, frame: drawn.append(sampler.sample(9, seed=8))
    )
    try:
        for _ in range(2):
            np.testing.assert_array_equal(sampler.sample(70, seed=8), expected[:70])
    finally:
        signal.signal(signal.SIGUSR1, previous)
    (images,) = drawn
    np.testing.assert_array_equal(images, expected[:9])


def test_a_stream_survives_close_and_neglect(nvidia: FakeDriver, tiny_artifact: Path) -> None:
    expected = Sampler(tiny_artifact, provider="cpu").sample(5000)
    sampler = on_gpu(tiny_artifact, tile=1024)
    dropped = sampler.stream(10**12, batch_size=999)
    np.testing.assert_array_equal(next(dropped), expected[:999])
    del dropped
    streams = [sampler.stream(5000, batch_size=500) for _ in range(9)]
    for number in range(10):  # all at once, in one thread
        for stream in streams:
            part = expected[500 * number :][:500]
            np.testing.assert_array_equal(next(stream), part)
    endless = sampler.stream(10**6, batch_size=1024)
    next(endless)
    sampler.close()
    with pytest.raises(ValueError, match="closed"):
        list(endless)


def test_a_pickled_one_opens_again(nvidia: FakeDriver, tiny_artifact: Path) -> None:
    sampler = Sampler(tiny_artifact, provider="cuda")
    copy = pickle.loads(pickle.dumps(sampler))
    assert copy.provider == "cuda:0"
    np.testing.assert_array_equal(copy.sample(70, seed=2), sampler.sample(70, seed=2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_is_told_and_lets_go_without_the_driver(
    nvidia: FakeDriver, tiny_artifact: Path
) -> None:
    sampler = Sampler(tiny_artifact, provider="cuda")
    sampler.sample(5)
    images = sampler.sample(5, device=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            nvidia.failing = dict.fromkeys(list(vars(nvidia)), 3)
            try:
                sampler.sample(1)
            except ProviderError as error:
                code = 0 if "forked" in str(error) else 2
            before = len(nvidia.memory)
            sampler.close()
            del images
            gc.collect()
            code += 4 * (len(nvidia.memory) != before)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(sampler.sample(5)) == len(images)
