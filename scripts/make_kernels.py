"""Write `inference/gpu/kernels.ptx`, our kernels for the NVIDIA driver.

python scripts/make_kernels.py

Compiles kernels.cu with NVIDIA's runtime compiler, the package `nvidia-cuda-nvrtc`, which PyTorch
for CUDA brings along. No GPU is needed. The target is compute capability 7.5, the oldest that the
compiler knows; the driver compiles the text again for its GPU, so newer ones take it too.

The compiler writes its own version of the PTX language into the text, and a driver refuses text of
a version newer than itself. The kernels use nothing newer than PTX 6.3, the first version for
compute capability 7.5, so 6.3 is what the file says: drivers from 418 (CUDA 10.1) on take it.
`ptxas` refuses features that are newer than the version in the text, and a test asks it.

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
        ModuleNotFoundError: where no package of it is installed.
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
    """PTX of CUDA source, as the compiler writes it.

    Raises:
        ValueError: with the compiler's words, where it refuses the source.
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
    """What kernels.ptx holds: the hash of its source, and the text for the oldest drivers."""
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
