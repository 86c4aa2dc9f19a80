"""PyTorch's global settings: rounding of products, and settings that traces and graphs store."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def float32_products(precision: str = "highest") -> Iterator[None]:
    """How PyTorch rounds the factors of float32 matrix products, and on CUDA of convolutions.

    precision: as in `torch.set_float32_matmul_precision`. "highest": no rounding. (PyTorch's
    default rounds in convolutions.)
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


@contextmanager
def known_settings(*, deterministic: bool = False) -> Iterator[None]:
    """Run a block under PyTorch's initial global settings, whatever the host program has set.

    Settings that the block changes are undone, including the number of threads.

    New tensors are float32 and on the CPU, there is no autocast, cuDNN is on and does not search
    for the fastest kernels, and the factors of float32 products and convolutions are not rounded.
    TorchScript keeps cuDNN's settings in each `aten::_convolution`, an ONNX graph or a compiled
    function keeps the types that autocast or another default type would give.

    deterministic: whether PyTorch may take deterministic algorithms only.
    """
    cudnn = torch.backends.cudnn
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        if (device := torch.get_default_device()).type != "cpu":
            stack.callback(torch.set_default_device, device)
            torch.set_default_device("cpu")
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        stack.callback(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        torch.use_deterministic_algorithms(deterministic)
        stack.enter_context(
            cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
        )
        stack.enter_context(float32_products())
        yield


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
