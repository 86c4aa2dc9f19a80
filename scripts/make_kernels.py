"""Write `inference/gpu/kernels.ptx`, ganpack's kernels for the NVIDIA driver.

python scripts/make_kernels.py

This program compiles kernels.cu with NVIDIA's runtime compiler, the package `nvidia-cuda-nvrtc`,
which is installed with PyTorch for CUDA. It needs no GPU. The target is compute capability 7.5, the
oldest that the compiler knows. The driver compiles the text again for its GPU, so newer GPUs work.

The compiler writes its own version of the PTX language into the text, and a driver refuses a newer
version than its own. The kernels use nothing newer than PTX 6.3, the first version for compute
capability 7.5. So this program changes the version to 6.3, which drivers from 418 (CUDA 10.1) on
accept. A test runs `ptxas`, which refuses features that are newer than the version in the text.

The first line of the file is the sha256 of kernels.cu.
"""

import ctypes
import hashlib
import re
from importlib.metadata import files
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[1] / "inference" / "gpu" / "kernels.cu"
PTX = SOURCE.with_suffix(".ptx")
PTX_VERSION = "6.3"
ARCHITECTURE = "compute_75"
PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")


def compiler() -> Any:
    """The library of NVIDIA's runtime compiler.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    for package in PACKAGES:
        try:
            found = files(package) or []
        except ModuleNotFoundError:
            continue
        for file in found:
            if re.fullmatch(r"libnvrtc\.so\.\d+", file.name):
                return ctypes.CDLL(str(file.locate()))
    raise ModuleNotFoundError(f"pip install {PACKAGES[0]}: it compiles {SOURCE.name}")


def compile_ptx(nvrtc: Any, source: str) -> str:
    """Compile CUDA source; the PTX as the compiler writes it.

    Raises:
        ValueError: if the compiler refuses the source; the message is the compiler's.
    """
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    text = source.encode()
    _check(
        nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None)
    )
    options = [f"--gpu-architecture={ARCHITECTURE}".encode()]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * 1)(*options))
    if failed:
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        raise ValueError(log.value.decode())
    _check(nvrtc, nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size)))
    ptx = ctypes.create_string_buffer(size.value)
    _check(nvrtc, nvrtc.nvrtcGetPTX(program, ptx))
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return ptx.value.decode()


def shipped(ptx: str, source: bytes) -> str:
    """The content of kernels.ptx: the hash of its source, and PTX for the oldest drivers."""
    old, changed = re.subn(r"^\.version .*$", f".version {PTX_VERSION}", ptx, flags=re.MULTILINE)
    if changed != 1:
        raise ValueError(f"the compiler's text says its version {changed} times")
    return f"// sha256 of kernels.cu: {hashlib.sha256(source).hexdigest()}\n{old.strip()}\n"


def main() -> None:
    source = SOURCE.read_bytes()
    PTX.write_text(shipped(compile_ptx(compiler(), source.decode()), source))


def _check(nvrtc: Any, code: int) -> None:
    if code:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise ValueError(f"NVIDIA's runtime compiler: {nvrtc.nvrtcGetErrorString(code).decode()}")


if __name__ == "__main__":
    main()
