"""The ways to run steps that a device has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

Kind = Literal["plain", "compiled", "graph"]


@dataclass(frozen=True)
class Way:
    """How steps are run."""

    kind: Kind = "plain"
    """plain: one operation at a time. compiled: as one compiled function. graph: in CUDA graphs, as
    compiled steps are on CUDA."""
    graph_steps: tuple[int, ...] = ()
    """Steps in each CUDA graph that is captured, falling to 1; none without graphs."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the compiler, as torch._inductor.config names them."""
    side_by_side: bool = False
    """Whether the generator's half of a compiled step runs in a CUDA stream of its own."""
    benchmark: bool = False
    """Whether cuDNN tries its algorithms."""


PLAIN = Way()
_GRAPH_STEPS = (25, 5, 1)  # the steps between two looks at the losses, 100, are whole graphs
_UNCHECKED = {"assert_indirect_indexing": False}  # the only indices are those of images


def ways(device: torch.device) -> list[Way]:
    """The ways of a device besides the plain one, those that are ready soonest first.

    Of several ways of a kind, the first that does what the plain one does is taken.
    """
    if device.type != "cuda":
        return [Way("compiled")]
    together = {"combo_kernels": True}  # independent small kernels as one
    return [
        Way("graph", _GRAPH_STEPS, benchmark=True),
        *(
            Way("compiled", _GRAPH_STEPS, options | _UNCHECKED, side_by_side=True, benchmark=True)
            for options in (together, {})
        ),
    ]
