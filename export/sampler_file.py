"""`sampler.onnx`: the noise stream and the generator in one graph; seed, start, count -> pixels.

The noise is that of `inference.noise`, written in ONNX with int64 only, because older onnxruntimes
have no kernels for unsigned integers. Let M be a multiplier of Philox and c = M - 2^32. Then p = x
c fits into 63 bits, its low 32 bits are those of x M, and the high 32 bits are (p - low) / 2^32 +
x.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from inference.noise import (
    KEY_INCREMENTS,
    LABEL_STREAM,
    LATENT_STREAM,
    MULTIPLIERS,
    ROUNDS,
    normal_quantiles,
)

if TYPE_CHECKING:
    import onnx


_PREFIX = "noise."


def sampler_graph(
    generator: "onnx.ModelProto", latent_dim: int, classes: int = 0
) -> "onnx.ModelProto":
    """The graph seed, start, count -> pixels, z; made from the graph z -> images, pixels.

    seed, start, count: int64 scalars with the bounds of `inference.noise.latents`. The graph of a
    conditional generator also takes label, an int64 scalar: the label of all images, or -1 for a
    random label for each image; and it also gives labels, int64 (n).
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.ModelProto()
    model.CopyFrom(generator)
    noise = _NoiseGraph()
    noise.latents(latent_dim)
    if classes:
        noise.labels(classes)
    graph = model.graph
    for node in reversed(noise.nodes):
        graph.node.insert(0, node)
    graph.initializer.extend(noise.constants.values())
    pixels = next(value for value in graph.output if value.name == "pixels")
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", latent_dim])
    outputs = [helper.make_tensor_value_info(*_described(pixels)), z]
    names = ["seed", "start", "count"]
    if classes:
        outputs.append(helper.make_tensor_value_info("labels", TensorProto.INT64, ["n"]))
        names.append("label")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in names]
    del graph.input[:], graph.output[:]
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    onnx.checker.check_model(model, full_check=True)
    return model


def _described(value: "onnx.ValueInfoProto") -> tuple[str, int, list[str | int]]:
    """Name, type and shape of a graph's input or output."""
    tensor = value.type.tensor_type
    return (
        value.name,
        tensor.elem_type,
        [dim.dim_param or dim.dim_value for dim in tensor.shape.dim],
    )


class _NoiseGraph:
    """Nodes and constants that turn seed, start and count into z, and label into labels."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[object, onnx.TensorProto] = {}

    def latents(self, latent_dim: int) -> None:
        """Nodes for z, float32 (n, latent_dim)."""
        blocks = -(-latent_dim // 8)
        count = self._op("Range", self._constant(0), "count", self._constant(1))
        self._image = self._op("Add", count, "start")  # (n,)
        image = self._op("Unsqueeze", self._image, self._constant([1]))
        # Each counter has only the axes it needs and broadcasts, so that half of the first two
        # rounds is computed once for each block or each image.
        words = self._philox(
            [
                self._constant(np.arange(blocks)[None]),  # (1, blocks)
                self._constant(LATENT_STREAM),
                *self._halves(image, 32),  # (n, 1)
            ],
            self._halves("seed", 32),
        )
        parts = [part for word in words for part in self._halves(word, 16)]
        axis = self._constant([2])
        stacked = self._op("Concat", *[self._op("Unsqueeze", part, axis) for part in parts], axis=2)
        flat = self._op("Reshape", stacked, self._constant([0, 8 * blocks]))
        if latent_dim % 8:
            flat = self._op("Slice", flat, *(self._constant([k]) for k in (0, latent_dim, 1)))
        self._op("Gather", self._constant(normal_quantiles()), flat, output="z", axis=0)

    def labels(self, classes: int) -> None:
        """Nodes for labels, int64 (n,): `label` for all images, or random if it is negative."""
        counter = [self._constant(0), self._constant(LABEL_STREAM), *self._halves(self._image, 32)]
        word = self._philox(counter, self._halves("seed", 32))[0]
        scaled = self._op("Mul", word, self._constant(classes))
        drawn = self._op("Div", scaled, self._constant(2**32))
        none = self._op("Less", "label", self._constant(0))
        self._op("Where", none, drawn, "label", output="labels")

    def _philox(self, counter: list[str], key: list[str]) -> list[str]:
        c0, c1, c2, c3 = counter
        for i in range(ROUNDS):
            if i > 0:
                key = [
                    self._low(self._op("Add", part, self._constant(increment)), 32)
                    for part, increment in zip(key, KEY_INCREMENTS, strict=True)
                ]
            high0, low0 = self._product(c0, int(MULTIPLIERS[0]))
            high1, low1 = self._product(c2, int(MULTIPLIERS[1]))
            # If shapes differ, the key joins the smaller operand first. (XOR has no order.)
            c0 = self._op("BitwiseXor", self._op("BitwiseXor", c1, key[0]), high1)
            c2 = self._op("BitwiseXor", self._op("BitwiseXor", c3, key[1]), high0)
            c1, c3 = low1, low0
        return [c0, c1, c2, c3]

    def _product(self, x: str, multiplier: int) -> tuple[str, str]:
        """High and low 32 bits of x times a multiplier; both are below 2^32."""
        p = self._op("Mul", x, self._constant(multiplier - 2**32))
        low = self._low(p, 32)
        quotient = self._op("Div", self._op("Sub", p, low), self._constant(2**32))
        return self._op("Add", quotient, x), low

    def _halves(self, x: str, bits: int) -> list[str]:
        """The low `bits` bits of x, as a number that is not negative, and the rest."""
        return [self._low(x, bits), self._op("Div", x, self._constant(2**bits))]

    def _low(self, x: str, bits: int) -> str:
        return self._op("BitwiseAnd", x, self._constant(2**bits - 1))

    def _op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{_PREFIX}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def _constant(self, value: object) -> str:
        """The name of an initializer, int64 or float32 (the table); equal ones are shared."""
        from onnx import numpy_helper

        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        key = array.dtype, array.shape, array.tobytes()
        name = f"{_PREFIX}constant.{len(self.constants)}"
        tensor = self.constants.setdefault(key, numpy_helper.from_array(array, name))
        return tensor.name
