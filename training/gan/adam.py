"""Adam, the optimizer of both networks, as a function of tensors: in two ways."""

import torch
from torch import Tensor

from training.config import StepNumbers

_EPS = 1e-8


def fused_adam(
    weights: list[Tensor],
    gradients: tuple[Tensor, ...],
    exp_avg: list[Tensor],
    exp_avg_sq: list[Tensor],
    now: StepNumbers[Tensor],
    betas: tuple[float, float],
) -> None:
    """Adam by PyTorch's fused kernel, which reads and writes everything once."""
    # The kernel takes elements in memory order (on CUDA it refuses strides that differ from the
    # weights'), and the gradient of a convolution may have another memory order than the weights.
    alike = [
        gradient
        if gradient.stride() == weight.stride()
        else torch.empty_like(weight).copy_(gradient)
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
    torch._fused_adam_(
        weights, alike, exp_avg, exp_avg_sq, [], [now.updates] * len(alike),
        lr=now.lr, beta1=float(betas[0]), beta2=float(betas[1]), eps=_EPS,
        weight_decay=0.0, amsgrad=False, maximize=False,
    )  # fmt: skip


def written_adam(
    weights: list[Tensor],
    gradients: tuple[Tensor, ...],
    exp_avg: list[Tensor],
    exp_avg_sq: list[Tensor],
    now: StepNumbers[Tensor],
    betas: tuple[float, float],
) -> None:
    """Adam as formulas, which a compiler can fuse with the operations around it.

    Kingma and Ba 2015, arXiv 1412.6980, algorithm 1, in the order of operations at the end of
    section 2.
    """
    beta1, beta2 = betas
    for weight, gradient, m, v in zip(weights, gradients, exp_avg, exp_avg_sq, strict=True):
        # lerp would read m even if beta1 is 0.
        first = torch.lerp(m, gradient, 1 - beta1) if beta1 else gradient
        second = v * beta2 + gradient.square() * (1 - beta2)
        size, root = now.step_size.to(weight.dtype), now.root.to(weight.dtype)
        weight.sub_(size * first / (second.sqrt() / root + _EPS))
        m.copy_(first)
        v.copy_(second)
