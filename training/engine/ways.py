"""The ways to run steps on each kind of device."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Kind = Literal["plain", "compiled", "graph"]


@dataclass(frozen=True)
class Way:
    """A way to run steps."""

    kind: Kind = "plain"
    """plain: one operation at a time. compiled: one compiled function; on CUDA also in CUDA graphs.
    graph: in CUDA graphs."""
    graph_steps: tuple[int, ...] = ()
    """Numbers of steps in the captured CUDA graphs, falling to 1; empty without graphs."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the compiler, by their names in torch._inductor.config."""
    side_by_side: bool = False
    """Whether the generator's half of a compiled step runs in its own CUDA stream."""
    benchmark: bool = False
    """Whether cuDNN benchmarks its algorithms."""


PLAIN = Way()
_GRAPH_STEPS = (25, 5, 1)  # divides 100, the number of steps between two checks of the losses
_UNCHECKED = {"assert_indirect_indexing": False}  # the only indices are indices of images


def ways(device: torch.device) -> list[Way]:
    """The ways of a device besides the plain one. The way that is ready soonest comes first.

    If a kind has several ways, the first one that agrees with the plain engine is used.
    """
    if device.type != "cuda":
        return [Way("compiled")]
    together = {"combo_kernels": True}  # combine independent small kernels
    return [
        Way("graph", _GRAPH_STEPS, benchmark=True),
        *(
            Way("compiled", _GRAPH_STEPS, options | _UNCHECKED, side_by_side=True, benchmark=True)
            for options in (together, {})
        ),
    ]
