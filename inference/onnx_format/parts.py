"""The parts of an ONNX file that are checked, as `onnx_file` reads them."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

AttributeValue = int | float | str | tuple[int, ...] | None
"""An attribute's value; None for one of another type, or of no single type."""


@dataclass(frozen=True)
class Tensor:
    """An initializer, or a constant in a node."""

    name: str
    data_type: int
    dims: tuple[int, ...]
    raw: bytes | memoryview
    """Its raw data in the file; empty if the data is stored in another way or elsewhere."""
    external: Mapping[str, str]
    """`location`, `offset`, `length` of data outside the file; empty if it is inside."""

    @property
    def count(self) -> int:
        """The number of its values, according to its dims."""
        return prod(self.dims)

    def integers(self) -> tuple[int, ...]:
        """The values of a tensor of int64."""
        return struct.unpack(f"<{len(self.raw) // 8}q", self.raw)

    def floats(self) -> tuple[float, ...]:
        """The values of a tensor of float32."""
        return struct.unpack(f"<{len(self.raw) // 4}f", self.raw)


@dataclass(frozen=True)
class Node:
    """One operation."""

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttributeValue]


@dataclass(frozen=True)
class Value:
    """An input or output of the graph."""

    name: str
    data_type: int
    """Type of the values of a tensor; 0 for anything else."""
    dims: tuple[int | str, ...]
    """A number, or the name of a size that is free."""


@dataclass
class ModelFile:
    """The parts of an ONNX file that are checked."""

    ir_version: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)
    """Versions of the sets of operations, by their domain."""
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    initializers: dict[str, Tensor] = field(default_factory=dict)
    tensors: list[Tensor] = field(default_factory=list)
    """All tensors, including those in nodes, inner graphs and functions."""
    graphs: int = 0
    strange: set[str] = field(default_factory=set)
    """The messages with a field that ganpack never writes, or with a repeated field."""

    @property
    def has_convolutions(self) -> bool:
        """Whether there are operations for which onnxruntime needs cuDNN on CUDA."""
        return any(node.op_type in {"Conv", "ConvTranspose"} for node in self.nodes)

    @property
    def external(self) -> list[Tensor]:
        """The tensors whose data is outside the file."""
        return [tensor for tensor in self.tensors if tensor.external]
