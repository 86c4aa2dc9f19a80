"""The graphs that ganpack writes: a file of its format may hold no other.

A file can carry a good seal and still be made by anyone. onnxruntime would run any graph in it,
loops and terabytes included, so this module lists what a generator may hold.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from ..artifact import ArtifactError
from .onnx_file import ModelFile, Node, Tensor

_FLOAT, _INT64, _HALF = 1, 7, 10
_ITEM_SIZES = {_FLOAT: 4, _INT64: 8, _HALF: 2}  # of onnx.TensorProto.DataType
_DOMAINS = {"", "ai.onnx"}
_INPUTS = "z", "labels"

# Slice gives fewer values than it takes; the others keep their number.
_KEEP_SIZE = {"LeakyRelu", "Tanh", "Reshape", "Add", "Mul", "Round", "Clip", "Cast", "Transpose"}
_KEEP_SIZE |= {"DepthToSpace", "Slice"}
# The attributes of a convolution that keeps height and width.
_SAME = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "strides": (1, 1), "dilations": (1, 1)}


@dataclass
class _Known:
    """What is known of a graph's tensors before a node."""

    constants: dict[str, Tensor]
    values: dict[str, int]
    """How many values each result has for one image.

    The first axis is the image's until Reshape, and a Gemm that fits such a size has as many rows
    as there are images.
    """

    def constant_at(self, node: Node, place: int) -> Tensor | None:
        """The constant that is a node's input at a place, if it is one."""
        return self.constants.get(node.inputs[place]) if len(node.inputs) > place else None

    def results_in(self, node: Node) -> list[str]:
        """A node's inputs that are no constants."""
        return [name for name in node.inputs if name in self.values]


def require_allowed(model: ModelFile, latent_dim: int, classes: int = 0) -> int:
    """Refuse a graph that is not a generator's.

    classes: how many a conditional generator has; it takes labels beside z.

    Returns the most values that a node gives for one image.

    Raises:
        ArtifactError: for anything that ganpack does not write.
    """
    _require_one_plain_graph(model)
    _require_whole_constants(model)
    known = _Known(dict(model.initializers), {"z": latent_dim} | ({"labels": 1} if classes else {}))
    for node in model.nodes:
        _follow(node, known)
    return max(known.values.values())


def _require_one_plain_graph(model: ModelFile) -> None:
    external = [tensor.name for tensor in model.tensors if tensor.external]
    if external:
        raise ArtifactError(
            f"its weights are kept outside the file ({external[0]!r}), ganpack keeps them inside"
        )
    if model.graphs != 1 or model.functions or model.has_sparse or model.domains - _DOMAINS:
        raise ArtifactError(
            "its graph is not a generator's: it has parts that ganpack never writes"
        )


def _require_whole_constants(model: ModelFile) -> None:
    for tensor in model.initializers.values():
        size = _ITEM_SIZES.get(tensor.data_type, 0)
        # A zero-sized tensor would let the next shape claim any size.
        if 0 in tensor.dims or prod(tensor.dims) * size != tensor.raw_size:
            raise ArtifactError(
                f"absurd shape: {tensor.name!r} is said to be {tensor.dims} and has "
                f"{tensor.raw_size} bytes"
            )
    for name in _INPUTS:
        if name in model.initializers:
            raise ArtifactError(f"its graph is not a generator's: {name} is a constant")


def _follow(node: Node, known: _Known) -> None:
    """Add a node's result to what is known; raise ArtifactError for a node that is not allowed."""
    if node.domain not in _DOMAINS or node.has_graph or len(node.outputs) != 1:
        raise _not_allowed(node)
    (output,) = node.outputs
    if output in known.values or output in known.constants:
        raise _not_allowed(node)
    constant = known.constant_at(node, 0)
    if node.op_type == "Cast" and constant is not None:  # weights in float16
        known.constants[output] = constant
    elif node.op_type in _RULES:
        known.values[output] = _RULES[node.op_type](node, known)
    else:
        raise _not_allowed(node)


def _gemm(node: Node, known: _Known) -> int:
    """A matrix product of a result and constant weights."""
    given, weights = known.results_in(node), known.constant_at(node, 1)
    if given != [*node.inputs[:1]] or weights is None or len(weights.dims) != 2:
        raise _not_allowed(node)
    n_out, n_in = weights.dims if node.integers.get("transB") else weights.dims[::-1]
    if node.integers.get("transA") or n_in != known.values[given[0]]:
        raise _not_allowed(node)
    return n_out


def _conv(node: Node, known: _Known) -> int:
    """A convolution of 3×3 that keeps height and width."""
    given, kernels = known.results_in(node), known.constant_at(node, 1)
    if given != [*node.inputs[:1]] or kernels is None or kernels.dims[2:] != (3, 3):
        raise _not_allowed(node)
    if any(node.lists.get(name, value) != value for name, value in _SAME.items()):
        raise _not_allowed(node)
    n_out, n_in, *_ = kernels.dims
    if known.values[given[0]] % n_in or node.integers.get("group", 1) != 1:
        raise _not_allowed(node)
    return known.values[given[0]] // n_in * n_out


def _gather(node: Node, known: _Known) -> int:
    """Rows of a constant table, one for each label."""
    table = known.constant_at(node, 0)
    if table is None or len(table.dims) != 2 or node.inputs[1:] != ("labels",):
        raise _not_allowed(node)
    if known.results_in(node) != ["labels"] or node.integers.get("axis"):
        raise _not_allowed(node)
    return table.dims[1]


def _concat(node: Node, known: _Known) -> int:
    """z and the rows for the labels, once: a chain of them could grow without bound."""
    given = known.results_in(node)
    if not len(node.inputs) == len(given) == 2:
        raise _not_allowed(node)
    if given[0] != "z" or node.integers.get("axis") != 1:
        raise _not_allowed(node)
    return sum(known.values[name] for name in given)


def _keep_size(node: Node, known: _Known) -> int:
    """An operation on one result, whose other inputs are constants of one number.

    The shape that Reshape takes may have more numbers.
    """
    given = known.results_in(node)
    others = [name for name in node.inputs if name and name not in known.values]
    if len(given) != 1 or any(name not in known.constants for name in others):
        raise _not_allowed(node)
    numbers = (prod(known.constants[name].dims) for name in others)
    if node.op_type != "Reshape" and any(count != 1 for count in numbers):
        raise _not_allowed(node)
    return known.values[given[0]]


_RULES: dict[str, Callable[[Node, _Known], int]] = {
    "Gemm": _gemm,
    "Conv": _conv,
    "Gather": _gather,
    "Concat": _concat,
    **dict.fromkeys(_KEEP_SIZE, _keep_size),
}
"""For each allowed operation, how many values it gives for one image."""


def _not_allowed(node: Node) -> ArtifactError:
    return ArtifactError(
        f"its graph is not a generator's: ganpack writes no {node.op_type or 'node'!r} like the "
        f"one in it"
    )
