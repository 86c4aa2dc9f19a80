"""The NVIDIA driver: its version, its devices, and the functions that are used."""

import ctypes
import platform
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

from ..errors import GanpackError

_CAPABILITY = 75, 76  # of CUdevice_attribute: major, minor
_OUT_OF_MEMORY, _NOT_INITIALIZED, _NO_DEVICE = 2, 3, 100  # of CUresult

_HANDLE = POINTER(c_void_p)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuCtxPopCurrent_v2": (_HANDLE,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxSynchronize": (),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuDevicePrimaryCtxRetain": (_HANDLE, c_int),
    "cuEventCreate": (_HANDLE, c_uint),
    "cuEventDestroy_v2": (c_void_p,),
    "cuEventRecord": (c_void_p, c_void_p),
    "cuEventSynchronize": (c_void_p,),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
    "cuGraphGetNodes": (c_void_p, _HANDLE, POINTER(c_size_t)),
    "cuGraphInstantiateWithFlags": (_HANDLE, c_void_p, c_uint64),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphNodeGetType": (c_void_p, POINTER(c_int)),
    "cuInit": (c_uint,),
    "cuLaunchKernel": (c_void_p, *[c_uint] * 7, c_void_p, POINTER(c_void_p), c_void_p),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFreeHost": (c_void_p,),
    "cuMemFree_v2": (c_uint64,),
    "cuMemHostAlloc": (_HANDLE, c_size_t, c_uint),
    "cuMemcpyAsync": (c_uint64, c_uint64, c_size_t, c_void_p),
    "cuMemcpyDtoH_v2": (c_void_p, c_uint64, c_size_t),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyHtoD_v2": (c_uint64, c_void_p, c_size_t),
    "cuModuleGetFunction": (_HANDLE, c_void_p, c_char_p),
    "cuModuleLoadData": (_HANDLE, c_char_p),
    "cuModuleUnload": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamCreate": (_HANDLE, c_uint),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamEndCapture": (c_void_p, _HANDLE),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamWaitEvent": (c_void_p, c_void_p, c_uint),
}


class ProviderError(GanpackError, RuntimeError):
    """The provider that was asked for cannot be used; the message says why."""


def functions() -> Any:
    """The driver's functions, made to raise ProviderError or MemoryError if they fail.

    Raises:
        ProviderError: if there is no driver, or it lacks a function.
    """
    driver = load_driver()

    def check(code: int, function: Any, arguments: Any) -> int:
        _raise_for(driver, function.__name__, code)
        return code

    for name, types in _FUNCTIONS.items():
        function = getattr(driver, name, None)
        if function is None:
            raise ProviderError(f"the NVIDIA driver is too old: it has no {name}")
        function.argtypes, function.restype, function.errcheck = types, c_int, check
    return driver


def forked() -> ProviderError:
    """The error for a forked process."""
    return ProviderError(
        "CUDA cannot be used in a process forked from one that has used it: start it with "
        "multiprocessing's `spawn` or `forkserver`"
    )


def load(name: str, mode: int = ctypes.DEFAULT_MODE) -> Any:
    """A shared library; None if it cannot be loaded."""
    try:
        return ctypes.CDLL(name, mode)
    except OSError:
        return None


def load_driver() -> Any:
    """The library of the NVIDIA driver.

    Raises:
        ProviderError: if there is none.
    """
    name = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    driver = load(name)
    if driver is None:
        raise ProviderError(f"no NVIDIA driver: {name} cannot be loaded")
    return driver


def driver_version(driver: Any) -> tuple[int, int]:
    """The newest version of CUDA that the driver supports, as (major, minor)."""
    number = c_int()
    _call(driver, "cuDriverGetVersion", byref(number))
    return number.value // 1000, number.value % 1000 // 10


def devices(driver: Any) -> list[dict[str, Any]]:
    """Name, compute capability and memory of each CUDA device."""
    count = c_int()
    code = driver.cuInit(0)
    if code == _NO_DEVICE:
        return []
    if code == _NOT_INITIALIZED:
        raise forked()
    _raise_for(driver, "cuInit", code)
    _call(driver, "cuDeviceGetCount", byref(count))
    return [_device(driver, ordinal) for ordinal in range(count.value)]


def _device(driver: Any, ordinal: int) -> dict[str, Any]:
    handle, memory, number = c_int(), c_size_t(), c_int()
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", byref(handle), ordinal)
    _call(driver, "cuDeviceGetName", name, len(name), handle)
    _call(driver, "cuDeviceTotalMem_v2", byref(memory), handle)
    capability = []
    for attribute in _CAPABILITY:
        _call(driver, "cuDeviceGetAttribute", byref(number), attribute, handle)
        capability.append(str(number.value))
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": ".".join(capability),
        "memory_bytes": memory.value,
    }


def _call(driver: Any, function: str, *arguments: Any) -> None:
    _raise_for(driver, function, getattr(driver, function)(*arguments))


def _raise_for(driver: Any, function: str, code: int) -> None:
    """Raise the error of a CUresult, with the driver's message, unless it is 0."""
    if code:
        name, text = c_char_p(), c_char_p()
        driver.cuGetErrorName(code, byref(name))
        driver.cuGetErrorString(code, byref(text))
        words = [(part.value or b"unknown").decode(errors="replace") for part in (name, text)]
        message = f"the NVIDIA driver fails: {function} says {code}, {words[0]}: {words[1]}"
        raise MemoryError(message) if code == _OUT_OF_MEMORY else ProviderError(message)
