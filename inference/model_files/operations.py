"""The operations that ganpack writes: their attributes, and the result of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod

from ..artifact import ArtifactError
from ..onnx_format.parts import AttributeValue, Node, Tensor

FLOAT, UINT8, INT64, HALF = 1, 2, 7, 10  # of onnx.TensorProto.DataType
ITEM_SIZES = {FLOAT: 4, INT64: 8, HALF: 2}
_MOST_CROPPED = 4  # rows or columns, for sizes that are no multiple of four

# The attributes of each operation, with the values that they may have. An attribute may be missing
# if its default in ONNX is such a value.
_ATTRIBUTES: dict[str, dict[str, tuple[AttributeValue, ...]]] = {
    "Gemm": {"alpha": (1.0,), "beta": (1.0,), "transA": (0,), "transB": (1,)},
    "Conv": {
        "auto_pad": ("NOTSET",), "dilations": ((1, 1),), "group": (1,), "kernel_shape": ((3, 3),),
        "pads": ((1, 1, 1, 1),), "strides": ((1, 1),),
    },
    "DepthToSpace": {"blocksize": (2,), "mode": ("CRD",)},
    "Gather": {"axis": (0,)},
    "Concat": {"axis": (1,)},
    "Reshape": {"allowzero": (0, 1)},
    "Cast": {"to": (FLOAT, UINT8)},
    "Transpose": {"perm": ((0, 2, 3, 1),)},
    "LeakyRelu": {},  # `alpha` has a range
    **{name: {} for name in ("Tanh", "Add", "Mul", "Round", "Clip", "Slice")},
}  # fmt: skip
_REQUIRED = {
    ("Gemm", "transB"), ("Conv", "pads"), ("DepthToSpace", "blocksize"), ("DepthToSpace", "mode"),
    ("Concat", "axis"), ("Cast", "to"), ("Transpose", "perm"), ("LeakyRelu", "alpha"),
}  # fmt: skip
# Pixels are round((x + 1) * 127.5), clipped.
_CONSTANTS = {"Add": (1.0,), "Mul": (127.5,), "Clip": (0.0, 255.0), "Tanh": (), "Round": ()}


@dataclass(frozen=True)
class Result:
    """The known facts about an input of the graph, or about the result of an operation."""

    shape: tuple[int, ...]
    """The shape of one image's values, without the axis of the images."""
    data_type: int = FLOAT

    @property
    def count(self) -> int:
        """The number of one image's values."""
        return prod(self.shape)


@dataclass
class Known:
    """The known facts about a graph before a node."""

    constants: dict[str, Tensor]
    results: dict[str, Result]
    classes: int = 0
    multiplications: int = 0
    """For one image."""
    convolved: bool = False
    """Whether there was a convolution."""
    values: int = 0
    """The values of all results for one image."""
    weight_bytes: int = 0
    """Bytes of the weights, if each operation has its own copy of the weights that it uses."""
    halves: dict[str, Tensor] = field(default_factory=dict)
    """Weights in float16, which can only be cast."""

    def result(self, node: Node, inputs: int) -> Result:
        """The first of a number of inputs; all others must be constants."""
        first, *others = node.inputs or ("",)
        if len(others) != inputs - 1 or any(name not in self.constants for name in others):
            raise not_allowed(node)
        if first not in self.results:
            raise not_allowed(node)
        return self.results[first]

    def weights(self, node: Node, place: int, rank: int) -> Tensor:
        """The float32 constant that is the input at that place."""
        tensor = self.constants[node.inputs[place]]
        if tensor.data_type != FLOAT or len(tensor.dims) != rank:
            raise not_allowed(node)
        self.weight_bytes += 4 * tensor.count
        return tensor

    def integers(self, node: Node, place: int) -> tuple[int, ...]:
        """The int64 values of the constant that is the input at that place."""
        tensor = self.constants[node.inputs[place]]
        if tensor.data_type != INT64 or not (len(tensor.dims) == 1 and tensor.count <= 4):
            raise not_allowed(node)
        return tensor.integers()


def follow(node: Node, known: Known) -> None:
    """Add the result of a node to the known facts.

    Raises:
        ArtifactError: if ganpack writes no such node.
    """
    if node.op_type not in _ATTRIBUTES or node.domain not in {"", "ai.onnx"}:
        raise not_allowed(node)
    _require_attributes(node)
    (output,) = node.outputs if len(node.outputs) == 1 else ("",)
    if not output or output in known.results or output in known.constants:
        raise not_allowed(node)
    if node.op_type == "Cast" and known.halves.keys() >= set(node.inputs):
        known.constants[output] = _cast_weights(node, known)
        return
    result = _RULES[node.op_type](node, known)
    known.results[output] = result
    known.values += result.count


def _require_attributes(node: Node) -> None:
    allowed = _ATTRIBUTES[node.op_type]
    for name, value in node.attributes.items():
        if node.op_type == "LeakyRelu" and name == "alpha":
            fine = isinstance(value, float) and 0 <= value <= 1
        else:
            # 1 and 1.0 differ here, because an attribute has one type.
            fine = any(type(value) is type(one) and value == one for one in allowed.get(name, ()))
        if not fine:
            raise not_allowed(node)
    for op_type, name in _REQUIRED:
        if op_type == node.op_type and name not in node.attributes:
            raise not_allowed(node)


def _cast_weights(node: Node, known: Known) -> Tensor:
    """Weights in float16, as float32."""
    if len(node.inputs) != 1 or node.attributes["to"] != FLOAT:
        raise not_allowed(node)
    half = known.halves[node.inputs[0]]
    known.weight_bytes += 4 * half.count
    return Tensor(half.name, FLOAT, half.dims, b"", {})


def _gemm(node: Node, known: Known) -> Result:
    """A matrix product of a result and constant weights, plus a bias; never after a convolution."""
    given = known.result(node, 3)
    if known.convolved:
        raise not_allowed(node)
    weights, bias = known.weights(node, 1, 2), known.weights(node, 2, 1)
    if given.data_type != FLOAT or given.shape != weights.dims[1:] or bias.dims != weights.dims[:1]:
        raise not_allowed(node)
    known.multiplications += weights.count
    return Result(bias.dims)


def _conv(node: Node, known: Known) -> Result:
    """A convolution of 3×3 that keeps height and width, plus a bias."""
    given = known.result(node, 3)
    weights, bias = known.weights(node, 1, 4), known.weights(node, 2, 1)
    n_out, n_in, *kernel = weights.dims
    if given.data_type != FLOAT or len(given.shape) != 3 or given.shape[0] != n_in:
        raise not_allowed(node)
    if kernel != [3, 3] or bias.dims != (n_out,):
        raise not_allowed(node)
    _, height, width = given.shape
    known.multiplications += weights.count * height * width
    known.convolved = True
    return Result((n_out, height, width))


def _gather(node: Node, known: Known) -> Result:
    """Rows of a constant table, one for each label."""
    if len(node.inputs) != 2 or node.inputs[1] != "labels" or "labels" not in known.results:
        raise not_allowed(node)
    if node.inputs[0] not in known.constants:
        raise not_allowed(node)
    rows, columns = known.weights(node, 0, 2).dims
    if rows != known.classes:
        raise not_allowed(node)
    return Result((columns,))


def _concat(node: Node, known: Known) -> Result:
    """z and the rows for the labels, once: a chain of them could grow without bound."""
    given = [known.results.get(name, Result((), INT64)) for name in node.inputs]
    if len(given) != 2 or node.inputs[0] != "z":
        raise not_allowed(node)
    if any(each.data_type != FLOAT or len(each.shape) != 1 for each in given):
        raise not_allowed(node)
    return Result((given[0].count + given[1].count,))


def _reshape(node: Node, known: Known) -> Result:
    """The same values of each image in another shape."""
    given = known.result(node, 2)
    images, *shape = known.integers(node, 1) or (0,)
    if images != -1 or min(shape, default=0) < 1 or prod(shape) != given.count:
        raise not_allowed(node)
    return Result(tuple(shape), given.data_type)


def _slice(node: Node, known: Known) -> Result:
    """The first rows or columns of images."""
    given = known.result(node, 5)
    starts, ends, axes, steps = (known.integers(node, place) for place in (1, 2, 3, 4))
    if not (len(starts) == len(ends) == len(axes) == len(steps) == 1) or len(given.shape) != 3:
        raise not_allowed(node)
    if starts != (0,) or steps != (1,) or axes[0] not in {2, 3}:
        raise not_allowed(node)
    shape = list(given.shape)
    if not max(0, shape[axes[0] - 1] - _MOST_CROPPED) < ends[0] <= shape[axes[0] - 1]:
        raise not_allowed(node)
    shape[axes[0] - 1] = ends[0]
    return Result(tuple(shape), given.data_type)


def _depth_to_space(node: Node, known: Known) -> Result:
    """Images of twice the height and width, with a quarter of the channels."""
    given = known.result(node, 1)
    if len(given.shape) != 3 or given.shape[0] % 4:
        raise not_allowed(node)
    channels, height, width = given.shape
    return Result((channels // 4, 2 * height, 2 * width), given.data_type)


def _to_pixels(node: Node, known: Known) -> Result:
    """The values as pixels: the only cast of a result."""
    given = known.result(node, 1)
    if given.data_type != FLOAT or node.attributes["to"] != UINT8:
        raise not_allowed(node)
    return Result(given.shape, UINT8)


def _transpose(node: Node, known: Known) -> Result:
    """Images with their channels last."""
    given = known.result(node, 1)
    if len(given.shape) != 3:
        raise not_allowed(node)
    return Result((*given.shape[1:], given.shape[0]), given.data_type)


def _keep_shape(node: Node, known: Known) -> Result:
    """An operation on each value, with constants that ganpack always writes."""
    constants = _CONSTANTS.get(node.op_type, ())
    given = known.result(node, 1 + len(constants))
    found = tuple(known.constants[name] for name in node.inputs[1:])
    if given.data_type != FLOAT or any(each.dims or each.data_type != FLOAT for each in found):
        raise not_allowed(node)
    if tuple(value for each in found for value in each.floats()) != constants:
        raise not_allowed(node)
    return given


_RULES: Mapping[str, Callable[[Node, Known], Result]] = {
    "Gemm": _gemm,
    "Conv": _conv,
    "Gather": _gather,
    "Concat": _concat,
    "Reshape": _reshape,
    "Slice": _slice,
    "DepthToSpace": _depth_to_space,
    "Cast": _to_pixels,
    "Transpose": _transpose,
    "LeakyRelu": _keep_shape,
    **dict.fromkeys(_CONSTANTS, _keep_shape),
}


def not_allowed(node: Node) -> ArtifactError:
    """The error for a node that ganpack does not write."""
    return ArtifactError(
        f"its graph is not a generator's: ganpack writes no {node.op_type or 'node'!r} like the "
        f"one in it"
    )
