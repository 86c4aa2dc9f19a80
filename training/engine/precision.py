"""How precisely float32 matrix products are computed."""

from collections.abc import Iterator
from contextlib import contextmanager

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
