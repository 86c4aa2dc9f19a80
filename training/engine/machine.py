"""What a run computes on: the device, the threads, and each process's share of a batch."""

import logging
import os
import platform
import re

import torch

from training.config import TrainConfig
from training.engine.distributed import Ranks
from training.interruption import TrainingError

_log = logging.getLogger(__name__)


def device_for(name: str, ranks: Ranks) -> torch.device:
    """The device of this process.  name: "auto", "cpu" or "cuda".

    Raises:
        TrainingError: if there is no GPU, or not one for each process.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            "--device cuda, but PyTorch finds no usable GPU: use --device cpu, or check the driver "
            "with nvidia-smi"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and ranks.count > 1:
        own, there = ranks.device_index, torch.cuda.device_count()
        if own >= there:
            raise TrainingError(
                f"each process needs a GPU of its own, but process {own + 1} finds {there} GPUs: "
                f"start {there} processes, or use --device cpu"
            )
        torch.cuda.set_device(own)
        return torch.device(name, own)
    return torch.device(name)


def refuse_uneven(batch_size: int, count: int) -> None:
    """Raise TrainingError unless each process gets an equal part of a batch."""
    if batch_size % count or batch_size < 2 * count:
        raise TrainingError(
            f"--batch-size {batch_size} cannot be split among {count} processes into equal parts "
            f"of two images or more: use a multiple of {count}, at least {2 * count}"
        )


def keep_threads(threads: int | None) -> None:
    """Use as many threads as before, because the last bits of sums on a CPU depend on them."""
    now, cores = torch.get_num_threads(), core_count()
    if threads is None or threads == now:
        return
    if threads <= cores:
        torch.set_num_threads(threads)
        _log.info(
            "continuing with %d threads, as before; %d would change the last bits", threads, now
        )
    else:
        _log.warning(
            "the run had %d threads and continues with %d, because there are %d cores: the result "
            "is the same except for rounding",
            threads, now, cores,
        )  # fmt: skip


def machine_of(device: torch.device, ranks: Ranks, batch_size: int) -> dict[str, str]:
    """What the run computes on, with the number of processes if there are several."""
    machine = describe_machine(device)
    if ranks.count > 1:
        machine["processes"] = str(ranks.count)
        share = batch_size // ranks.count
        _log.info("%d processes, %d images of each batch to each", ranks.count, share)
    return machine


def out_of_memory(config: TrainConfig, error: Exception) -> str:
    """A message that says what to reduce."""
    asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
    return (
        f"out of GPU memory: {asked[1] if asked else 'more'} is needed and not free. Reduce "
        f"--batch-size (now {config.recipe.batch_size}), which needs memory in each step, or "
        f"--image-size (now {config.data.image_size}), which needs memory for the data set"
    )


def core_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "process_cpu_count"):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(device: torch.device) -> dict[str, str]:
    """Name and version of what the run computes with: processor, cores, GPU, libraries."""
    description = {
        "processor": _processor(),
        "cores": str(core_count()),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }
    if device.type == "cuda":
        description |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": str(torch.version.cuda),
        }
    return description


def _processor() -> str:
    """The processor's name, and its instructions that make training faster."""
    capabilities = torch.cpu.get_capabilities()
    name = str(capabilities.get("cpu_name") or platform.processor() or platform.machine())
    wide = [each for each in ("avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(each)]
    return f"{name} ({', '.join(wide)})" if wide else name
