"""What a run, or a figure, was made on, and how precisely it multiplies."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import torch


@contextmanager
def float32_products(precision: str = "highest") -> Iterator[None]:
    """How PyTorch rounds the factors of float32 matrix products, and on CUDA of convolutions.

    precision: as `torch.set_float32_matmul_precision` has it; "highest" is not at all, which for
    convolutions is not what PyTorch begins with.
    """
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    of_convolutions = cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        cudnn.allow_tf32 = of_convolutions


def describe_machine(device: torch.device) -> dict[str, str]:
    """Processor, cores, GPU and versions."""
    description = {
        "processor": _processor(),
        "cores": str(
            os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
        ),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    if device.type == "cuda":
        description |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda),
        }
    return description


def _processor() -> str:
    """Its name and the instructions that matter here."""
    capabilities = torch.cpu.get_capabilities()
    name = str(capabilities.get("cpu_name") or platform.processor() or platform.machine())
    wide = [each for each in ("avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(each)]
    return f"{name} ({', '.join(wide)})" if wide else name
