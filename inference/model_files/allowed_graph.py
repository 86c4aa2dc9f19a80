"""The graphs that ganpack writes: a file of its format may hold no other.

A file can carry a good seal and still be made by anyone. onnxruntime would run any graph in it,
loops and terabytes included, so what a generator may hold is listed here.
"""

from collections.abc import Mapping
from math import prod

from ..artifact import ArtifactError
from .onnx_file import ModelFile, Node, Tensor

_FLOAT, _INT64, _HALF = 1, 7, 10
_ITEM_SIZES = {_FLOAT: 4, _INT64: 8, _HALF: 2}  # of onnx.TensorProto.DataType

# Each gives as many values as it is given, Slice fewer; constants among the other inputs hold one
# number, but for the shape that Reshape takes.
_KEEP_SIZE = {"LeakyRelu", "Tanh", "Reshape", "Add", "Mul", "Round", "Clip", "Cast", "Transpose"}
_KEEP_SIZE |= {"DepthToSpace", "Slice"}
# What a convolution that keeps height and width may say.
_SAME = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "strides": (1, 1), "dilations": (1, 1)}


_INPUTS = "z", "labels"


def widest(model: ModelFile, latent_dim: int, classes: int = 0) -> int:
    """The most values that any step of the graph gives for one image.

    classes: of a conditional generator, which has labels beside z.

    Raises:
        ArtifactError: for a graph that is not a generator's.
    """
    external = [tensor.name for tensor in model.tensors if tensor.external]
    if external:
        raise ArtifactError(
            f"its weights are kept outside the file ({external[0]!r}), ganpack keeps them inside"
        )
    if model.graphs != 1 or model.functions or model.has_sparse or model.domains - {"", "ai.onnx"}:
        raise ArtifactError(
            "its graph is not a generator's: it has parts that ganpack never writes"
        )
    for tensor in model.initializers.values():
        size = _ITEM_SIZES.get(tensor.data_type, 0)
        # A width of nothing would let the next one be anything.
        if 0 in tensor.dims or prod(tensor.dims) * size != tensor.raw_size:
            raise ArtifactError(
                f"absurd shape: {tensor.name!r} is said to be {tensor.dims} and has "
                f"{tensor.raw_size} bytes"
            )
    for name in _INPUTS:
        if name in model.initializers:
            raise ArtifactError(f"its graph is not a generator's: {name} is a constant")
    constants = dict(model.initializers)
    # Values in one image of each result: the first axis is the image's until Reshape, and a Gemm
    # that fits a width has as many rows as there are images.
    widths = {"z": latent_dim}
    if classes:
        widths["labels"] = 1
    for node in model.nodes:
        _follow(node, constants, widths)
    return max(widths.values())


def _follow(node: Node, constants: dict[str, Tensor], widths: dict[str, int]) -> None:
    given = [name for name in node.inputs if name in widths]
    if node.domain not in {"", "ai.onnx"} or node.has_graph or len(node.outputs) != 1:
        raise _foreign(node)
    (output,) = node.outputs
    if output in widths or output in constants:
        raise _foreign(node)
    if node.op_type == "Cast" and node.inputs[:1] and node.inputs[0] in constants:
        constants[output] = constants[node.inputs[0]]  # float16 weights
    elif node.op_type in {"Gemm", "Conv"}:
        layer = _gemm if node.op_type == "Gemm" else _conv
        widths[output] = layer(node, given, constants, widths)
    elif node.op_type == "Gather":
        # Of a table with a row for each label.
        table = constants.get(node.inputs[0]) if node.inputs else None
        if table is None or len(table.dims) != 2 or node.inputs[1:] != ("labels",):
            raise _foreign(node)
        if given != ["labels"] or node.integers.get("axis"):
            raise _foreign(node)
        widths[output] = table.dims[1]
    elif node.op_type == "Concat":
        # Once, of z and what stands for the labels: no chain of them grows without bound.
        two = len(node.inputs) == len(given) == 2
        if not two or given[0] != "z" or node.integers.get("axis") != 1:
            raise _foreign(node)
        widths[output] = sum(widths[name] for name in given)
    elif node.op_type in _KEEP_SIZE and len(given) == 1:
        others = [name for name in node.inputs if name and name not in widths]
        if any(name not in constants for name in others) or (
            node.op_type != "Reshape" and any(prod(constants[name].dims) != 1 for name in others)
        ):
            raise _foreign(node)
        widths[output] = widths[given[0]]
    else:
        raise _foreign(node)


def _gemm(
    node: Node, given: list[str], constants: Mapping[str, Tensor], widths: Mapping[str, int]
) -> int:
    weights = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if given != [*node.inputs[:1]] or weights is None or len(weights.dims) != 2:
        raise _foreign(node)
    n_out, n_in = weights.dims if node.integers.get("transB") else weights.dims[::-1]
    if node.integers.get("transA") or n_in != widths[given[0]]:
        raise _foreign(node)
    return n_out


def _conv(
    node: Node, given: list[str], constants: Mapping[str, Tensor], widths: Mapping[str, int]
) -> int:
    kernels = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    if given != [*node.inputs[:1]] or kernels is None or kernels.dims[2:] != (3, 3):
        raise _foreign(node)
    if any(node.lists.get(name, value) != value for name, value in _SAME.items()):
        raise _foreign(node)
    n_out, n_in, *_ = kernels.dims
    if widths[given[0]] % n_in or node.integers.get("group", 1) != 1:
        raise _foreign(node)
    return widths[given[0]] // n_in * n_out


def _foreign(node: Node) -> ArtifactError:
    return ArtifactError(
        f"its graph is not a generator's: ganpack writes no {node.op_type or 'node'!r} like the "
        f"one in it"
    )
