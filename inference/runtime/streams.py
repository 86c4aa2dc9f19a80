"""Work on a CUDA device: streams, events, graphs and kernels."""

from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_void_p
from typing import Any

from .device import Context, Owned
from .driver import ProviderError

_HOST_NODE = 3  # of CUgraphNodeType
_NON_BLOCKING = 1  # of CUstream_flags: work on the default stream does not block this stream
_DISABLE_TIMING = 2  # of CUevent_flags
_RELAXED = 2  # of CUstreamCaptureMode: other threads may allocate while a stream is captured


class GraphError(Exception):
    """Some work cannot become a CUDA graph; the message says why."""


class Event(Owned):
    """An event: a place in a stream that others can wait for."""

    _destroy = "cuEventDestroy_v2"

    def __init__(self, context: Context) -> None:
        handle = c_void_p()
        with context:
            context.driver.cuEventCreate(byref(handle), _DISABLE_TIMING)
        super().__init__(context, handle.value)

    def wait(self) -> None:
        """Wait until the stream has reached the place where the event was last recorded."""
        self.context.driver.cuEventSynchronize(self.handle)


class Stream(Owned):
    """A queue of work. Its methods need the context to be current."""

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

    def copy(self, source: int, target: int, size: int) -> None:
        """Copy between addresses of the device or of pinned memory."""
        self.context.driver.cuMemcpyAsync(target, source, size, self.handle)

    def record(self, event: Event) -> None:
        """Record an event at this place."""
        self.context.driver.cuEventRecord(event.handle, self.handle)

    def wait_for(self, event: Event) -> None:
        """Let this stream wait for an event of another stream."""
        self.context.driver.cuStreamWaitEvent(self.handle, event.handle, 0)

    def wait(self) -> None:
        """Wait until all work on the stream is done."""
        self.context.driver.cuStreamSynchronize(self.handle)


class Graph(Owned):
    """Recorded work of a stream, which one call puts on a stream again."""

    _destroy = "cuGraphExecDestroy"

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        """Record the work that `work` puts on the stream, without doing it.

        Raises:
            GraphError: if the work is more than kernels and copies on the device.
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
        """Put the recorded work on the stream."""
        self.context.driver.cuGraphLaunch(self.handle, self._stream)


class Module(Owned):
    """A module of kernels that the driver has compiled from PTX."""

    _destroy = "cuModuleUnload"

    def __init__(self, context: Context, ptx: bytes) -> None:
        handle = c_void_p()
        with context:
            context.driver.cuModuleLoadData(byref(handle), ptx)
        super().__init__(context, handle.value)

    def kernel(self, name: str) -> c_void_p:
        """A kernel of the module, for `cuLaunchKernel`."""
        function = c_void_p()
        with self.context:
            self.context.driver.cuModuleGetFunction(byref(function), self.handle, name.encode())
        return function


def _require_no_host_nodes(calls: Any, graph: c_void_p) -> None:
    """Raise GraphError if a graph calls the host.

    onnxruntime frees host memory of some operations by such a call. That is right once, but each
    launch of the graph would free the memory again.
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
