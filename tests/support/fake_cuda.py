"""A fake CUDA device on the processor: the driver's functions, and onnxruntime's CUDA provider.

Its memory is the host's. Work on a stream is done only when somebody waits for the stream, so that
a missing wait gives wrong pixels.
"""

import ctypes
import threading
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from inference.noise import labels, latents, normal_quantiles

Work = Callable[[], object]

PROVIDERS = ["CUDAExecutionProvider", "CPUExecutionProvider"]
LIBRARIES = ["libcublasLt.so.13", "libcublas.so.13", "libcudart.so.13", "libcurand.so.10"]


class FakeFunction:
    """A function of the driver, with the attributes that ctypes gives to functions."""

    def __init__(self, name: str, action: Callable[..., int | None]) -> None:
        self.__name__, self._action = name, action
        self.argtypes = self.restype = None
        self.errcheck: Callable[..., int] = lambda code, function, arguments: code

    def __call__(self, *arguments: Any) -> int:
        return self.errcheck(self._action(*arguments) or 0, self, arguments)


class FakeDriver:
    """libcuda.so.1, with the signatures that NVIDIA documents."""

    def __init__(
        self,
        version: int = 13000,
        count: int = 1,
        init: int = 0,
        failing: dict[str, int] | None = None,
    ) -> None:
        self._version, self._count, self._init = version, count, init
        self.failing = failing or {}
        self._lock = threading.RLock()
        self._handles = iter(range(1000, 10**9))
        self.memory: dict[int, np.ndarray[Any, Any]] = {}
        self.pinned: dict[int, np.ndarray[Any, Any]] = {}
        self.streams: dict[int, deque[Work]] = {}
        self.captures: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.marks: dict[int, tuple[int, Work]] = {}
        self.launched: list[str] = []
        self.full = False
        self.busy = (
            0  # calls in progress; the calls of a real driver end before Python handles a signal
        )
        self.depth = threading.local()

    def __getattr__(self, name: str) -> FakeFunction:
        if not name.startswith("cu"):
            raise AttributeError(name)
        if name in self.failing:
            code = self.failing[name]

            def fail(*arguments: Any) -> int:
                if name == "cuStreamEndCapture":
                    self.captures.clear()
                return code

            failing = FakeFunction(name, fail)
            setattr(self, name, failing)
            return failing
        action = getattr(type(self), f"do_{name.partition('_v2')[0]}", None)
        if action is None:
            raise AttributeError(name)

        def locked(*arguments: Any) -> int | None:
            with self._lock:
                self.busy += 1
                found: int | None = action(self, *arguments)
                self.busy -= 1
                return found

        function = FakeFunction(name, locked)
        setattr(self, name, function)
        return function

    def enqueue(self, stream: int, work: Work) -> None:
        """Put work on a stream, or into the graph that is being recorded."""
        with self._lock:
            self.captures.get(stream, self.streams[stream]).append(work)

    def drain(self, stream: int, until: Work | None = None) -> None:
        """Do the work on a stream, all of it or the first part."""
        with self._lock:
            queue = self.streams[stream]
            if until is not None and until not in queue:
                return
            while queue:
                work = queue.popleft()
                work()
                if work is until:
                    return

    def _new(self, out: Any) -> int:
        handle = next(self._handles)
        out._obj.value = handle
        return handle

    def do_cuDriverGetVersion(self, number: Any) -> None:
        number._obj.value = self._version

    def do_cuInit(self, flags: int) -> int:
        return self._init

    def do_cuGetErrorString(self, code: int, text: Any) -> None:
        text._obj.value = b"system not yet initialized"

    def do_cuGetErrorName(self, code: int, text: Any) -> None:
        text._obj.value = b"CUDA_ERROR_SYSTEM_NOT_READY"

    def do_cuDeviceGetCount(self, number: Any) -> None:
        number._obj.value = self._count

    def do_cuDeviceGet(self, handle: Any, ordinal: int) -> None:
        handle._obj.value = ordinal

    def do_cuDeviceGetName(self, name: Any, length: int, handle: ctypes.c_int) -> None:
        name.value = f"GPU {handle.value}".encode()

    def do_cuDeviceTotalMem(self, memory: Any, handle: ctypes.c_int) -> None:
        memory._obj.value = 80 * 2**30

    def do_cuDeviceGetAttribute(self, number: Any, attribute: int, handle: ctypes.c_int) -> None:
        number._obj.value = {75: 9, 76: 0}[attribute]

    def do_cuDevicePrimaryCtxRetain(self, context: Any, ordinal: Any) -> None:
        self._new(context)

    def do_cuDevicePrimaryCtxRelease(self, ordinal: Any) -> None:
        pass

    def do_cuCtxPushCurrent(self, context: Any) -> None:
        self.depth.value = getattr(self.depth, "value", 0) + 1

    def do_cuCtxPopCurrent(self, context: Any) -> None:
        self.depth.value -= 1

    def do_cuCtxSynchronize(self) -> None:
        self.launched.append("synchronize")
        for stream in self.streams:
            self.drain(stream)

    def do_cuMemAlloc(self, address: Any, size: int) -> int:
        if self.full:
            return 2
        assert self.depth.value > 0, "no current context"
        memory = np.full(size, 0xAB, np.uint8)
        self.memory[memory.ctypes.data] = memory
        address._obj.value = memory.ctypes.data
        return 0

    def do_cuMemFree(self, address: int) -> None:
        for stream in self.streams:
            self.drain(stream)
        del self.memory[address]

    def do_cuMemHostAlloc(self, address: Any, size: int, flags: int) -> None:
        memory = np.full(size, 0xCD, np.uint8)
        self.pinned[memory.ctypes.data] = memory
        address._obj.value = memory.ctypes.data

    def do_cuMemFreeHost(self, address: int) -> None:
        del self.pinned[address]

    def do_cuMemcpyHtoD(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)

    def do_cuMemcpyDtoH(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)

    def do_cuMemcpyHtoDAsync(self, target: int, source: int, size: int, stream: int) -> None:
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size))

    do_cuMemcpyAsync = do_cuMemcpyHtoDAsync

    def do_cuMemcpyDtoHAsync(self, target: int, source: int, size: int, stream: int) -> None:
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size))
        self.drain(stream)  # memory that is not pinned: the call returns when everything is copied

    def do_cuStreamCreate(self, stream: Any, flags: int) -> None:
        self.streams[self._new(stream)] = deque()

    def do_cuStreamDestroy(self, stream: int) -> None:
        self.drain(stream)

    def do_cuStreamSynchronize(self, stream: int | None) -> None:
        if stream is None:
            return
        assert stream not in self.captures, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
        self.drain(stream)

    def do_cuEventCreate(self, event: Any, flags: int) -> None:
        self._new(event)

    def do_cuEventDestroy(self, event: int) -> None:
        pass

    def do_cuEventRecord(self, event: int, stream: int) -> None:
        def mark() -> None:
            pass

        self.enqueue(stream, mark)
        self.marks[event] = stream, mark

    def do_cuEventSynchronize(self, event: int) -> None:
        if event in self.marks:
            self.drain(*self.marks[event])

    def do_cuStreamWaitEvent(self, stream: int, event: int, flags: int) -> None:
        other, mark = self.marks[event]
        self.enqueue(stream, lambda: self.drain(other, mark))

    def do_cuModuleLoadData(self, module: Any, ptx: bytes) -> None:
        assert b".visible .entry noise_latents" in ptx
        self._new(module)

    def do_cuModuleUnload(self, module: Any) -> None:
        pass

    def do_cuModuleGetFunction(self, function: Any, module: Any, name: bytes) -> None:
        function._obj.value = {b"noise_latents": 1, b"noise_labels": 2, b"images_to_pixels": 3}[
            name
        ]

    def do_cuLaunchKernel(self, kernel: Any, *others: Any) -> None:
        *grid, _, stream, arguments, _ = others
        blocks, _, _, threads, _, _ = grid
        types, items_of, draw = KERNELS[kernel.value]
        values = [
            kind.from_address(address).value for kind, address in zip(types, arguments, strict=True)
        ]
        assert (blocks - 1) * threads < items_of(values) <= blocks * threads
        self.launched.append(draw.__name__)
        self.enqueue(stream, lambda: draw(*values))

    def do_cuStreamBeginCapture(self, stream: int, mode: int) -> None:
        assert mode == 2  # relaxed: other threads may allocate
        self.captures[stream] = []

    def do_cuStreamEndCapture(self, stream: int, graph: Any) -> None:
        self.graphs[self._new(graph)] = self.captures.pop(stream)

    def do_cuGraphGetNodes(self, graph: Any, nodes: Any, count: Any) -> None:
        count._obj.value = len(self.graphs[graph.value])

    def do_cuGraphNodeGetType(self, node: int, kind: Any) -> None:
        kind._obj.value = 0  # a kernel

    def do_cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: int) -> None:
        self.graphs[self._new(executable)] = self.graphs[graph.value]

    def do_cuGraphDestroy(self, graph: Any) -> None:
        del self.graphs[graph.value]

    def do_cuGraphExecDestroy(self, executable: int) -> None:
        del self.graphs[executable]

    def do_cuGraphLaunch(self, executable: int, stream: int) -> None:
        assert stream not in self.captures
        self.launched.append("graph")
        for work in self.graphs[executable]:
            self.enqueue(stream, lambda work=work: work())  # type: ignore[misc]


def _draw_latents(z: int, upper: int, seed: int, start: int, count: int, latent_dim: int) -> None:
    table = np.ctypeslib.as_array((ctypes.c_float * 2**15).from_address(upper))
    np.testing.assert_array_equal(table, normal_quantiles()[2**15 :])
    out = (ctypes.c_float * (count * latent_dim)).from_address(z)
    drawn = latents(count, latent_dim, seed=seed, start=start)
    np.ctypeslib.as_array(out)[:] = drawn.ravel()


def _draw_labels(out: int, seed: int, start: int, count: int, classes: int, label: int) -> None:
    drawn = labels(count, classes, seed=seed, start=start) if label < 0 else label
    np.ctypeslib.as_array((ctypes.c_int64 * count).from_address(out))[:] = drawn


def _to_pixels(pixels: int, images: int, values: int, channels: int, size: int) -> None:
    given = np.ctypeslib.as_array((ctypes.c_float * values).from_address(images))
    levels = ((given + np.float32(1)) * np.float32(127.5)).round().clip(0, 255).astype(np.uint8)
    made = levels.reshape(-1, channels, size).transpose(0, 2, 1)
    np.ctypeslib.as_array((ctypes.c_uint8 * values).from_address(pixels))[:] = made.ravel()


_u64, _u32 = ctypes.c_uint64, ctypes.c_uint32
KERNELS: dict[int, tuple[Any, Callable[[list[int]], int], Callable[..., None]]] = {
    1: ((_u64, _u64, _u64, _u64, _u32, _u32), lambda v: v[4] * -(-v[5] // 8), _draw_latents),
    2: ((_u64, _u64, _u64, _u32, _u32, ctypes.c_int64), lambda v: v[3], _draw_labels),
    3: ((_u64, _u64, _u32, _u32, _u32), lambda v: -(-v[2] // 4), _to_pixels),
}
"""For each kernel: the types of its arguments, the number of items, and a function."""


class FakeRuntime:
    """onnxruntime whose CUDA provider is the CPU provider under another name."""

    def __init__(self, base: Any, driver: Callable[[], FakeDriver]) -> None:
        self.__dict__.update(vars(base))
        self._driver = driver
        self.asked: list[tuple[Any, Any, dict[str, Any]]] = []
        self.settings: list[tuple[str, str]] = []
        self.assigned = {"CUDAExecutionProvider"}
        self.RunOptions = onnxruntime.RunOptions

    def SessionOptions(self) -> Any:
        real, settings = onnxruntime.SessionOptions(), self.settings

        class Options:
            log_severity_level = intra_op_num_threads = 0

            def add_session_config_entry(self, key: str, value: str) -> None:
                settings.append((key, value))

        options = Options()
        options.real = real  # type: ignore[attr-defined]
        return options

    def InferenceSession(self, model: bytes, options: Any, providers: Any, **others: Any) -> Any:
        self.asked.append((providers, options, others))
        real = onnxruntime.InferenceSession(
            model, options.real, providers=["CPUExecutionProvider"], **others
        )
        if providers == ["CPUExecutionProvider"]:
            return real
        parts = [SimpleNamespace(ep_name=name) for name in self.assigned]
        ((_, settings),) = providers
        stream = int(settings.get("user_compute_stream", 0))
        return _FakeSession(real, parts, self._driver(), stream)


class _FakeSession:
    """A session, on a stream of the fake device or without a stream."""

    def __init__(self, real: Any, parts: list[Any], driver: FakeDriver, stream: int) -> None:
        self._real, self._driver, self._stream = real, driver, stream
        self.get_inputs, self.get_outputs = real.get_inputs, real.get_outputs
        self.run = real.run
        self.get_providers = lambda: ["CUDAExecutionProvider"]
        self.get_provider_graph_assignment_info = lambda: parts

    def io_binding(self) -> Any:
        real = self._real.io_binding()

        def bind(name: str, place: str, device: int, kind: Any, shape: Any, address: int) -> None:
            assert place == "cuda"
            real.bind_input(name, "cpu", 0, kind, shape, address)

        def bind_output(
            name: str, place: str, device: int, kind: Any, shape: Any, address: int
        ) -> None:
            assert place == "cuda"
            real.bind_output(name, "cpu", 0, kind, shape, address)

        return SimpleNamespace(real=real, bind_input=bind, bind_output=bind_output)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        entry = "disable_synchronize_execution_providers"
        assert options.get_run_config_entry(entry) == "1"
        self._driver.enqueue(self._stream, lambda: self._real.run_with_iobinding(binding.real))
