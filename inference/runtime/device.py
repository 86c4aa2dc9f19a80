"""Context and memory of a CUDA device.

Everything lives in the device's primary context, which onnxruntime, PyTorch, CuPy and JAX use too.
Each object frees its resources when nothing refers to it any more. In a forked process it does not,
because the driver cannot be used there and the resources belong to the parent.
"""

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from ctypes import byref, c_int, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .driver import ProviderError, forked, functions

_MAPPED = 2  # of cuMemHostAlloc's flags: kernels may write to it, too


class Context:
    """The primary context of a device. A `with` block makes it current in the thread."""

    def __init__(self, device: int) -> None:
        self.device, self.driver = device, functions()
        self._process = os.getpid()
        self._ordinal, handle = c_int(), c_void_p()
        self.driver.cuInit(0)
        self.driver.cuDeviceGet(byref(self._ordinal), device)
        self.driver.cuDevicePrimaryCtxRetain(byref(handle), self._ordinal)
        self._handle = handle

    def __enter__(self) -> None:
        """Make the context current; raise ProviderError in a forked process."""
        if self.forked:
            raise forked()
        self.driver.cuCtxPushCurrent_v2(self._handle)

    def __exit__(self, *error: object) -> None:
        """Make the previous context current again."""
        self.driver.cuCtxPopCurrent_v2(byref(c_void_p()))

    @property
    def forked(self) -> bool:
        """Whether this process was forked from the one that made the context."""
        return os.getpid() != self._process

    def synchronize(self) -> None:
        """Wait for all work of this process on the device."""
        self.driver.cuCtxSynchronize()

    def free(self, function: Callable[..., int], handle: Any) -> None:
        """Free something of the driver's; at the exit of the process it may be gone already."""
        if self.forked:
            return
        with suppress(ProviderError, MemoryError), self:
            function(handle)

    def __del__(self) -> None:
        """Release the context."""
        if hasattr(self, "_handle") and not self.forked:
            with suppress(ProviderError):
                self.driver.cuDevicePrimaryCtxRelease_v2(self._ordinal)


class Owned:
    """A resource of the driver that is freed with this object."""

    _destroy: str

    def __init__(self, context: Context, handle: Any) -> None:
        self.context, self.handle = context, handle

    def __del__(self) -> None:
        """Free it."""
        if hasattr(self, "handle") and self.handle:
            self.context.free(getattr(self.context.driver, self._destroy), self.handle)


class DeviceMemory(Owned):
    """Memory on the device, at `handle`."""

    _destroy = "cuMemFree_v2"

    def __init__(self, context: Context, size: int) -> None:
        address = c_uint64()
        with context:
            context.driver.cuMemAlloc_v2(byref(address), max(size, 1))
        self.size = size
        self.exported = False  # whether other libraries may have pending work on it
        super().__init__(context, address.value)

    def read(self, out: NDArray[Any]) -> None:
        """Copy the memory into an array, and wait."""
        with self.context:
            self.context.driver.cuMemcpyDtoH_v2(out.ctypes.data, self.handle, out.nbytes)

    def write(self, data: NDArray[Any]) -> None:
        """Copy an array into the memory, and wait."""
        with self.context:
            self.context.driver.cuMemcpyHtoD_v2(self.handle, data.ctypes.data, data.nbytes)
            # The call returns when the host's memory has been read, maybe before the device's is
            # written; other streams than the default one do not wait for that.
            self.context.driver.cuStreamSynchronize(None)


class PinnedMemory(Owned):
    """Memory of the host that the device reads and writes by itself, as an array of bytes."""

    _destroy = "cuMemFreeHost"

    def __init__(self, context: Context, size: int) -> None:
        address = c_void_p()
        with context:
            context.driver.cuMemHostAlloc(byref(address), max(size, 1), _MAPPED)
        super().__init__(context, address.value)
        memory = (ctypes.c_uint8 * size).from_address(address.value or 0)
        self.array: NDArray[np.uint8] = np.frombuffer(memoryview(memory), np.uint8)
