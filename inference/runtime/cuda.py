"""Check what CUDA needs, library by library, before onnxruntime is asked for CUDA.

If a library is missing, onnxruntime prints a line and runs on the CPU. Here the error says what is
missing and how to install it.
"""

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from . import driver as nvidia
from . import installation
from .driver import ProviderError, devices, driver_version, load_driver

_FOR_CUDA_12 = "'onnxruntime-gpu[cuda,cudnn]<1.27'"  # the last that were built for it


class Library(NamedTuple):
    """A file that onnxruntime's CUDA provider loads."""

    name: str
    package: str
    """The pip package that contains it."""


def require_cuda(runtime: Any, device: int, *, convolutions: bool = False) -> None:
    """Raise ProviderError unless onnxruntime has everything to run on this CUDA device.

    runtime: the module `onnxruntime`.  convolutions: whether the graph has some.
    """
    version = runtime.__version__
    driver = load_driver()
    count = len(devices(driver))
    if not count:
        raise ProviderError("no NVIDIA GPU: the driver shows no device")
    packages = installed(runtime)
    if len(packages) > 1:
        found = " and ".join(f"{name} {number}" for name, number in packages.items())
        raise ProviderError(
            f"{found} are installed over one another: "
            f"pip uninstall -y {' '.join(packages)} && {installation.command('gpu')}"
        )
    if not has_provider(runtime):
        raise ProviderError(
            f"onnxruntime {version} here has no CUDA provider: "
            f"pip uninstall -y onnxruntime && {installation.command('gpu')}"
        )
    major = built_for(runtime)
    supported = driver_version(driver)
    if supported < (major, 0):
        raise ProviderError(
            f"the NVIDIA driver is too old: it runs CUDA {supported[0]}.{supported[1]} at most, "
            f"onnxruntime {version} needs {major}.0. Update the driver, or take an onnxruntime "
            f"for CUDA 12: pip install {_FOR_CUDA_12}"
        )
    _require_libraries(libraries(runtime, convolutions=convolutions))
    if device >= count:
        raise ProviderError(
            f"there is no CUDA device {device}, this machine shows {count}: "
            f"cuda:0 to cuda:{count - 1}"
        )


def _require_libraries(wanted: list[Library]) -> None:
    missing = [library for library in wanted if load(library) is None]
    if missing:
        names = ", ".join(library.name for library in missing)
        lacking = " ".join(dict.fromkeys(f"'{library.package}'" for library in missing))
        raise ProviderError(f"{names} cannot be loaded: pip install {lacking}")


def has_provider(runtime: Any) -> bool:
    """Whether this onnxruntime is a build for CUDA."""
    return "CUDAExecutionProvider" in runtime.get_available_providers()


def installed(runtime: Any) -> dict[str, str]:
    """The onnxruntime packages in the folder that this one lies in, and their versions."""
    folder = Path(runtime.__file__).parents[1]
    found = {}
    for path in sorted(folder.glob("onnxruntime*.dist-info")):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        # Other packages, such as onnxruntime_extensions, have folders of their own.
        if name in {"onnxruntime", "onnxruntime_gpu", "onnxruntime_directml"}:
            found[name.replace("_", "-")] = version
    return found


def built_for(runtime: Any) -> int:
    """The major version of CUDA that this onnxruntime was built for; 0 if unknown."""
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


def load(library: Library) -> str | None:
    """Load a library, so that onnxruntime finds it; return its path, or None if it is missing."""
    no_load = getattr(os, "RTLD_NOLOAD", None)
    if no_load is not None and nvidia.load(library.name, no_load):
        return "in this process already"
    for path in _beside(library):
        if nvidia.load(str(path)):
            return str(path)
    return "on the system's path" if nvidia.load(library.name) else None


def _beside(library: Library) -> Iterator[Path]:
    """The paths where NVIDIA's packages may have installed it."""
    from importlib.util import find_spec

    spec = find_spec("nvidia")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for place in ("*/lib", "*/bin", "*/bin/*"):
            yield from Path(folder).glob(f"{place}/{library.name}")
