"""What a run computes on: the device, the threads, and each process's share of a batch."""

import logging
import os
import platform
import re
from math import prod

import torch

from inference.artifact import LARGEST_FILE
from training.config import ConfigError, TrainConfig
from training.data.images import Images
from training.data.memory import in_gb, memory_of
from training.engine.distributed import Ranks
from training.engine.precision import multiplies_bfloat16
from training.gan.sizes import sizes_of
from training.interruption import TrainingError

_FLOAT = 4  # bytes
_SCORED, _ROWS = 10_000, 2500  # images, and rows of distances at once, in `training.scoring`
_OTHER = 150_000_000  # bytes of libraries that are loaded later, such as for charts
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


def refuse_too_large(config: TrainConfig, device: torch.device, *, resume: bool) -> None:
    """Refuse what can neither be trained here nor be exported, before anything is loaded.

    Raises:
        ConfigError: if an artifact cannot hold the generator of a new run.
        TrainingError: if weights, moments and one batch alone are more than the memory.
    """
    shape = config.data.channels, config.data.image_size, config.data.image_size
    generator, discriminator = sizes_of(config.network, shape)
    widths = "--conv-width" if config.network.network == "conv" else "--generator-dims"
    file = _FLOAT * generator.weights
    if file > LARGEST_FILE and not resume:
        raise ConfigError(
            f"the generator would have {generator.weights:,} weights, {in_gb(file)}, and an "
            f"artifact can hold {in_gb(LARGEST_FILE)}: lower {widths}, --latent-dim or --image-size"
        )
    in_batch = 2 * prod(shape) + config.network.latent_dim
    parts = {
        "the widths of the networks": 3 * _FLOAT * (generator.weights + discriminator.weights),
        "--batch-size": _FLOAT * config.recipe.batch_size * in_batch,
    }
    least, total = sum(parts.values()), memory_of(device).total
    if least > total:
        raise TrainingError(
            f"the run needs at least {in_gb(least)} of memory, and there are {in_gb(total)}: lower "
            f"{max(parts, key=lambda name: parts[name])}"
        )


def warn_of_memory(config: TrainConfig, images: Images, device: torch.device, count: int) -> None:
    """Log a warning if the run seems to need more memory than is free.

    images: the data set, which is loaded already.  count: number of processes on this device.
    """
    need = needed_memory(config, len(images), images.image_shape, images.classes, device)
    most, free = count * need, memory_of(device).free
    if most > free:
        _log.warning(
            "the run needs about %s more memory, and %s are free, so the system may end it: lower "
            "--batch-size, --image-size or the widths of the networks",
            in_gb(most), in_gb(free),
        )  # fmt: skip


def needed_memory(
    config: TrainConfig,
    count: int,
    image_shape: tuple[int, int, int],
    classes: tuple[str, ...],
    device: torch.device,
) -> int:
    """Estimated bytes of a run at its peak, without the data set and loaded libraries.

    count: number of images in the data set.
    """
    generator, discriminator = sizes_of(config.network, image_shape, classes)
    pixels, scored = prod(image_shape), min(count // 2, _SCORED)
    # Weights, gradients, moments and average, and their copies while they are saved.
    networks = _FLOAT * (8 * generator.weights + 6 * discriminator.weights)
    values = generator.activations + 2 * discriminator.activations + 3 * pixels
    coarse = config.matmul_precision == "medium" and multiplies_bfloat16(device)
    steps = config.recipe.batch_size * values * (4 if coarse else 5)
    # Real images in two halves, generated ones in parts, and the distances between features.
    scores = 2 * (scored + min(scored, 1000)) * pixels + 4 * _FLOAT * _ROWS * scored
    return networks + max(steps, scores) + _OTHER


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
