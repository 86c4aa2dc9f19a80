"""Images in the memory of a CUDA device, for other libraries without a copy."""

import ctypes
from collections.abc import Callable
from ctypes import c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.device import DeviceMemory

CUDA = 2  # of DLDeviceType
_UNSIGNED = 1  # of DLDataTypeCode


class DeviceImages:
    """uint8 images on a CUDA device: `shape` (n, H, W), colour (n, H, W, 3), C-contiguous.

    PyTorch, CuPy and JAX accept them through DLPack or `__cuda_array_interface__`, without a copy:
    `torch.from_dlpack(images)`, `cupy.from_dlpack(images)`, `jax.dlpack.from_dlpack(images)`. The
    images are complete, so no stream has to wait. The memory lives as long as this object or
    anything made from it.
    """

    def __init__(self, memory: DeviceMemory, shape: tuple[int, ...]) -> None:
        self._memory = memory
        self.shape = shape
        self.dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        """Number of images."""
        return self.shape[0]

    def __repr__(self) -> str:
        """Shape and device."""
        return f"<uint8 images {self.shape} on {self.device}>"

    @property
    def device(self) -> str:
        """The device: "cuda:N"."""
        return f"cuda:{self._memory.context.device}"

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return prod(self.shape)

    def numpy(self) -> NDArray[np.uint8]:
        """A copy in the host's memory."""
        copied = np.empty(self.shape, np.uint8)
        if copied.size:
            self._memory.read(copied)
        return copied

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """CUDA array interface, version 3; no stream has to wait."""
        self._memory.exported = True
        return {
            "shape": self.shape,
            "typestr": "|u1",
            "data": (self._memory.handle if self.nbytes else 0, False),
            "strides": None,
            "stream": None,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """The type of the device, CUDA, and its number."""
        return CUDA, self._memory.context.device

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule of the same memory.

        stream: the consumer's stream, which does not have to wait.

        Raises:
            BufferError: for a copy, or for another device.
        """
        if copy:
            raise BufferError("these images are handed over without a copy; copy them afterwards")
        if dl_device not in {None, self.__dlpack_device__()}:
            raise BufferError(f"these images are on {self.device}, not on {dl_device}")
        self._memory.exported = True
        return _capsule(self._memory, self.shape)


class _Tensor(ctypes.Structure):
    """DLManagedTensor of dlpack.h, with the fields of its DLTensor."""

    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("byte_offset", c_uint64),
        ("manager", c_void_p),
        ("deleter", c_void_p),
    ]


_handed_over: dict[int, tuple[Any, ...]] = {}
"""For each tensor that a consumer holds, by address: what must live as long as the tensor."""


def _release(address: int) -> None:
    """The consumer calls this when it releases a tensor."""
    _handed_over.pop(address, None)


def _destroy(capsule: int) -> None:
    """Called when a capsule is destroyed. If nobody took the tensor, it has its first name."""
    if _is_valid(capsule, _NAME):
        _release(_pointer(capsule, _NAME))


_NAME = b"dltensor"
_callback = ctypes.CFUNCTYPE(None, c_void_p)
# Never freed, because a consumer may outlive everything else.
_RELEASE, _DESTROY = _callback(_release), _callback(_destroy)


def _python(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of Python's C API."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


_new = _python("PyCapsule_New", ctypes.py_object, c_void_p, ctypes.c_char_p, c_void_p)
# By address, because no new reference to a capsule may be made while it is destroyed.
_is_valid = _python("PyCapsule_IsValid", ctypes.c_int, c_void_p, ctypes.c_char_p)
_pointer = _python("PyCapsule_GetPointer", c_void_p, c_void_p, ctypes.c_char_p)


def _capsule(memory: DeviceMemory, shape: tuple[int, ...]) -> Any:
    axes = len(shape)
    sizes = (c_int64 * axes)(*shape)
    steps = (c_int64 * axes)(*(prod(shape[i + 1 :]) for i in range(axes)))
    tensor = _Tensor(
        data=memory.handle,
        device_type=CUDA,
        device_id=memory.context.device,
        ndim=axes,
        code=_UNSIGNED,
        bits=8,
        lanes=1,
        shape=ctypes.addressof(sizes),
        strides=ctypes.addressof(steps),
        byte_offset=0,
        manager=None,
        deleter=ctypes.cast(_RELEASE, c_void_p),
    )
    address = ctypes.addressof(tensor)
    _handed_over[address] = tensor, sizes, steps, memory
    return _new(address, _NAME, ctypes.cast(_DESTROY, c_void_p))
