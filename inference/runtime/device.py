"""What is allocated on a CUDA device, and what is done there.

Everything lives in the device's primary context, which onnxruntime, PyTorch, CuPy and JAX use too.
Each object frees what it holds when nothing refers to it any more, except in a forked process: the
driver cannot be used there, and what it allocated belongs to the parent.
"""

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .driver import ProviderError, forked, functions

_HOST_NODE = 3  # of CUgraphNodeType
_NON_BLOCKING = 1  # of CUstream_flags: the host's work on the default stream does not hold ours up
_DISABLE_TIMING = 2  # of CUevent_flags
_RELAXED = 2  # of CUstreamCaptureMode: other threads may allocate while a stream is captured


class GraphError(Exception):
    """Work cannot be made a CUDA graph; the message says why."""


class Context:
    """The primary context of a device. In `with`, it is the current one of the thread."""

    def __init__(self, device: int) -> None:
        self.device, self.driver = device, functions()
        self._process = os.getpid()
        self._ordinal, handle = c_int(), c_void_p()
        self.driver.cuInit(0)
        self.driver.cuDeviceGet(byref(self._ordinal), device)
        self.driver.cuDevicePrimaryCtxRetain(byref(handle), self._ordinal)
        self._handle = handle

    def __enter__(self) -> None:
        """Make it the current one; ProviderError in a forked process."""
        if self.forked:
            raise forked()
        self.driver.cuCtxPushCurrent_v2(self._handle)

    def __exit__(self, *error: object) -> None:
        """Make the one before it the current one again."""
        self.driver.cuCtxPopCurrent_v2(byref(c_void_p()))

    @property
    def forked(self) -> bool:
        """Whether this process is not the one that made it."""
        return os.getpid() != self._process

    def synchronize(self) -> None:
        """Wait for all work on the device that this process has begun."""
        self.driver.cuCtxSynchronize()

    def free(self, function: Callable[..., int], handle: Any) -> None:
        """Give something back, if it can be; at the end of the process it may be gone already."""
        if self.forked:
            return
        with suppress(ProviderError, MemoryError), self:
            function(handle)

    def __del__(self) -> None:
        """Give it back."""
        if hasattr(self, "_handle") and not self.forked:
            with suppress(ProviderError):
                self.driver.cuDevicePrimaryCtxRelease_v2(self._ordinal)


class _Owned:
    """Something of the driver's that is freed with this object."""

    _destroy: str

    def __init__(self, context: Context, handle: Any) -> None:
        self.context, self.handle = context, handle

    def __del__(self) -> None:
        if hasattr(self, "handle") and self.handle:
            self.context.free(getattr(self.context.driver, self._destroy), self.handle)


class DeviceMemory(_Owned):
    """Memory on the device, at `handle`."""

    _destroy = "cuMemFree_v2"

    def __init__(self, context: Context, size: int) -> None:
        address = c_uint64()
        with context:
            context.driver.cuMemAlloc_v2(byref(address), max(size, 1))
        self.size = size
        self.exported = False  # whether others may have work under way on it
        super().__init__(context, address.value)

    def read(self, out: NDArray[Any]) -> None:
        """Copy it into an array, and wait."""
        with self.context:
            self.context.driver.cuMemcpyDtoH_v2(out.ctypes.data, self.handle, out.nbytes)

    def write(self, data: NDArray[Any]) -> None:
        """Copy an array into it, and wait."""
        with self.context:
            self.context.driver.cuMemcpyHtoD_v2(self.handle, data.ctypes.data, data.nbytes)
            # The call returns when the host's memory has been read, maybe before the device's is
            # written; other streams than the default one do not wait for that.
            self.context.driver.cuStreamSynchronize(None)


class PinnedMemory(_Owned):
    """Memory of the host that the device copies to and from by itself, as an array of bytes."""

    _destroy = "cuMemFreeHost"

    def __init__(self, context: Context, size: int) -> None:
        address = c_void_p()
        with context:
            context.driver.cuMemHostAlloc(byref(address), max(size, 1), 0)
        super().__init__(context, address.value)
        memory = (ctypes.c_uint8 * size).from_address(address.value or 0)
        self.array: NDArray[np.uint8] = np.frombuffer(memoryview(memory), np.uint8)


class Event(_Owned):
    """A place in a stream that can be waited for."""

    _destroy = "cuEventDestroy_v2"

    def __init__(self, context: Context) -> None:
        handle = c_void_p()
        with context:
            context.driver.cuEventCreate(byref(handle), _DISABLE_TIMING)
        super().__init__(context, handle.value)

    def wait(self) -> None:
        """Wait until the stream has come to the place where it was recorded last."""
        self.context.driver.cuEventSynchronize(self.handle)


class Stream(_Owned):
    """A queue of work. Its methods want the context to be the current one."""

    _destroy = "cuStreamDestroy_v2"

    def __init__(self, context: Context) -> None:
        handle = c_void_p()
        with context:
            context.driver.cuStreamCreate(byref(handle), _NON_BLOCKING)
        super().__init__(context, handle.value)

    def to_host(self, source: int, target: int, size: int) -> None:
        """Copy from the device."""
        self.context.driver.cuMemcpyDtoHAsync_v2(target, source, size, self.handle)

    def to_device(self, source: int, target: int, size: int) -> None:
        """Copy to the device."""
        self.context.driver.cuMemcpyHtoDAsync_v2(target, source, size, self.handle)

    def on_device(self, source: int, target: int, size: int) -> None:
        """Copy within the device."""
        self.context.driver.cuMemcpyDtoDAsync_v2(target, source, size, self.handle)

    def record(self, event: Event) -> None:
        """Mark this place."""
        self.context.driver.cuEventRecord(event.handle, self.handle)

    def wait_for(self, event: Event) -> None:
        """Do nothing more until another stream has come to its mark."""
        self.context.driver.cuStreamWaitEvent(self.handle, event.handle, 0)

    def wait(self) -> None:
        """Wait until all of its work is done."""
        self.context.driver.cuStreamSynchronize(self.handle)


class Graph(_Owned):
    """Work that was put on a stream once, to be put there again by one call."""

    _destroy = "cuGraphExecDestroy"

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        """Record the work that `work` puts on the stream; none of it is done.

        Raises:
            GraphError: where it is more than kernels and copies on the device.
        """
        calls, graph, handle = stream.context.driver, c_void_p(), c_void_p()
        self._stream = stream.handle
        try:
            calls.cuStreamBeginCapture_v2(stream.handle, _RELAXED)
            try:
                work()
            finally:
                calls.cuStreamEndCapture(stream.handle, byref(graph))
            _require_no_host_nodes(calls, graph)
            calls.cuGraphInstantiateWithFlags(byref(handle), graph, 0)
        except (ProviderError, MemoryError) as error:
            raise GraphError(str(error)) from None
        finally:
            if graph:
                calls.cuGraphDestroy(graph)
        super().__init__(stream.context, handle.value)

    def launch(self) -> None:
        """Put the work on its stream."""
        self.context.driver.cuGraphLaunch(self.handle, self._stream)


class Module(_Owned):
    """Kernels that the driver has compiled from PTX."""

    _destroy = "cuModuleUnload"

    def __init__(self, context: Context, ptx: bytes) -> None:
        handle = c_void_p()
        with context:
            context.driver.cuModuleLoadData(byref(handle), ptx)
        super().__init__(context, handle.value)

    def kernel(self, name: str) -> c_void_p:
        """A kernel of it, for `cuLaunchKernel`."""
        function = c_void_p()
        with self.context:
            self.context.driver.cuModuleGetFunction(byref(function), self.handle, name.encode())
        return function


def _require_no_host_nodes(calls: Any, graph: c_void_p) -> None:
    """Raise GraphError where a graph calls the host.

    onnxruntime frees the host memory of some operations by such a call. Once is right, each
    launch of a graph would do it again.
    """
    count, kind = c_size_t(), c_int()
    calls.cuGraphGetNodes(graph, None, byref(count))
    nodes = (c_void_p * count.value)()
    calls.cuGraphGetNodes(graph, nodes, byref(count))
    for node in nodes:
        calls.cuGraphNodeGetType(node, byref(kind))
        if kind.value == _HOST_NODE:
            raise GraphError("the network calls the host")
    if not count.value:
        raise GraphError("the network puts nothing on the stream")
