"""What CUDA needs here, looked at by name before onnxruntime is asked for it.

onnxruntime answers a missing library with a line on stderr and a session on the CPU. Whoever asks
for CUDA shall learn instead what is missing, and which line installs it.
"""

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_FOR_CUDA_12 = "'onnxruntime-gpu[cuda,cudnn]<1.27'"  # the last that were built for it
_NO_DEVICE = 100  # of CUresult
_NOT_INITIALIZED = 3
_CAPABILITY = 75, 76  # of CUdevice_attribute: major, minor


class ProviderError(RuntimeError):
    """The provider that was asked for cannot be had; the message says why."""


class Library(NamedTuple):
    """A file that onnxruntime's CUDA provider loads."""

    name: str
    package: str
    """What pip installs it by."""


def require_cuda(runtime: Any, device: int, *, convolutions: bool = False) -> None:
    """Raise ProviderError unless all is there for onnxruntime to run on this CUDA device.

    runtime: the module `onnxruntime`.  convolutions: whether the graph has some.
    """
    version = runtime.__version__
    packages = installed(runtime)
    if len(packages) > 1:
        found = " and ".join(f"{name} {number}" for name, number in packages.items())
        raise ProviderError(
            f"{found} are installed over one another: "
            f"pip uninstall -y {' '.join(packages)} && pip install 'ganpack[gpu]'"
        )
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise ProviderError(
            f"onnxruntime {version} here has no CUDA provider: "
            f"pip uninstall -y onnxruntime && pip install 'ganpack[gpu]'"
        )
    driver = load_driver()
    major = built_for(runtime)
    supported = driver_version(driver)
    if supported < (major, 0):
        raise ProviderError(
            f"the NVIDIA driver is too old: it runs CUDA {supported[0]}.{supported[1]} at most, "
            f"onnxruntime {version} needs {major}.0. Update the driver, or take an onnxruntime "
            f"for CUDA 12: pip install {_FOR_CUDA_12}"
        )
    wanted = libraries(runtime, convolutions=convolutions)
    missing = [library for library in wanted if find(library) is None]
    if missing:
        names = ", ".join(library.name for library in missing)
        lacking = " ".join(dict.fromkeys(f"'{library.package}'" for library in missing))
        raise ProviderError(f"{names} cannot be loaded: pip install {lacking}")
    count = len(devices(driver))
    if device >= count:
        raise ProviderError(
            f"there is no CUDA device {device}, this machine shows {count}"
            + (f": cuda:0 to cuda:{count - 1}" if count else "")
        )


def installed(runtime: Any) -> dict[str, str]:
    """The onnxruntime packages in the folder that this one lies in, and their versions."""
    folder = Path(runtime.__file__).parents[1]
    found = {}
    for path in sorted(folder.glob("onnxruntime*.dist-info")):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        # Others, such as onnxruntime_extensions, have folders of their own.
        if name in {"onnxruntime", "onnxruntime_gpu", "onnxruntime_directml"}:
            found[name.replace("_", "-")] = version
    return found


def built_for(runtime: Any) -> int:
    """The major version of CUDA that this onnxruntime was built for; 0 where it does not say."""
    found = re.match(r"\d+", str(getattr(runtime, "cuda_version", "")))
    return int(found[0]) if found else 0


def libraries(runtime: Any, *, convolutions: bool = False) -> list[Library]:
    """What its CUDA provider loads, in the order to load them; none where it does not say.

    convolutions: whether it shall run some. They need cuDNN, which is loaded for them alone from
    1.31 on.
    """
    major = built_for(runtime)
    if not major:
        return []
    windows = platform.system() == "Windows"
    suffix, pin = ("", f"~={major}.0") if major >= 13 else (f"-cu{major}", f"~={major}.0")
    wanted = [
        ("cublasLt", major, f"nvidia-cublas{suffix}{pin}"),  # cublas needs it
        ("cublas", major, f"nvidia-cublas{suffix}{pin}"),
        ("cudart", major, f"nvidia-cuda-runtime{suffix}{pin}"),
    ]
    if not windows:  # there, it is loaded only where it is called
        wanted.append(("curand", 10, f"nvidia-curand{suffix}~=10.0"))
    old = tuple(map(int, re.findall(r"\d+", runtime.__version__)[:2])) < (1, 31)
    if old:
        fft = 12 if major >= 13 else 11
        wanted.append(("cufft", fft, f"nvidia-cufft{suffix}~={fft}.0"))
    if old or convolutions:
        wanted.append(("cudnn", 9, f"nvidia-cudnn-cu{major}~=9.0"))
    return [
        Library(f"{name}64_{number}.dll" if windows else f"lib{name}.so.{number}", package)
        for name, number, package in wanted
    ]


def find(library: Library) -> str | None:
    """Load a library, so that onnxruntime finds it; from where, or None where it cannot be had."""
    no_load = getattr(os, "RTLD_NOLOAD", None)
    if no_load is not None and _load(library.name, no_load):
        return "in this process already"
    for path in _beside(library):
        if _load(str(path)):
            return str(path)
    return "on the system's path" if _load(library.name) else None


def _beside(library: Library) -> Iterator[Path]:
    """Where NVIDIA's packages may have put it."""
    from importlib.util import find_spec

    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for place in ("*/lib", "*/bin", "*/bin/*"):
            yield from Path(folder).glob(f"{place}/{library.name}")


def load_driver() -> Any:
    """The library of the NVIDIA driver.

    Raises:
        ProviderError: where there is none.
    """
    name = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    driver = _load(name)
    if driver is None:
        raise ProviderError(f"no NVIDIA driver: {name} cannot be loaded")
    return driver


def driver_version(driver: Any) -> tuple[int, int]:
    """The newest CUDA that the driver runs, as (major, minor)."""
    number = ctypes.c_int()
    _call(driver, "cuDriverGetVersion", ctypes.byref(number))
    return number.value // 1000, number.value % 1000 // 10


def devices(driver: Any) -> list[dict[str, Any]]:
    """Name, compute capability and memory of each CUDA device."""
    count = ctypes.c_int()
    code = driver.cuInit(0)
    if code == _NO_DEVICE:
        return []
    if code == _NOT_INITIALIZED:
        raise ProviderError(
            "CUDA cannot be used in a process forked from one that has used it: start it with "
            "multiprocessing's `spawn` or `forkserver`"
        )
    _raise_for(driver, "cuInit", code)
    _call(driver, "cuDeviceGetCount", ctypes.byref(count))
    return [_device(driver, ordinal) for ordinal in range(count.value)]


def _device(driver: Any, ordinal: int) -> dict[str, Any]:
    handle, memory, number = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    _call(driver, "cuDeviceGet", ctypes.byref(handle), ordinal)
    _call(driver, "cuDeviceGetName", name, len(name), handle)
    _call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
    capability = []
    for attribute in _CAPABILITY:
        _call(driver, "cuDeviceGetAttribute", ctypes.byref(number), attribute, handle)
        capability.append(str(number.value))
    return {
        "name": name.value.decode(errors="replace"),
        "compute_capability": ".".join(capability),
        "memory_bytes": memory.value,
    }


def _call(driver: Any, function: str, *arguments: Any) -> None:
    _raise_for(driver, function, getattr(driver, function)(*arguments))


def _raise_for(driver: Any, function: str, code: int) -> None:
    """Raise ProviderError, in the driver's words, unless the code is 0."""
    if code:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        words = (text.value or b"unknown error").decode(errors="replace")
        raise ProviderError(f"the NVIDIA driver fails: {function} says {code}, {words}")


def _load(name: str, mode: int = ctypes.DEFAULT_MODE) -> Any:
    """A shared library, or None where it cannot be loaded."""
    try:
        return ctypes.CDLL(name, mode)
    except OSError:
        return None
