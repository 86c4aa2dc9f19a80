"""What a run, or a figure, was made on."""

import os
import platform
from importlib.metadata import version

import torch


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
