"""Sealed files with networks of any size, made of the operations that exports have."""

from random import Random
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from inference.artifact import CONTRACT_KEY, SEAL_KEY, UNSEALED, Metadata, seal
from inference.noise import NOISE


class Network:
    """A network that grows layer by layer, from z of one value."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._last = "z"
        self.shape: tuple[int, ...] = (1,)

    def gemm(self, width: int) -> None:
        """A fully connected layer."""
        weights = np.full((width, *self.shape), 0.01, np.float32)
        self._op("Gemm", weights, np.zeros(width, np.float32), transB=1)
        self.shape = (width,)

    def reshape(self, *shape: int, output: str = "") -> None:
        """Images of the values."""
        self._op("Reshape", np.array([-1, *shape]), output=output)
        self.shape = shape

    def conv(self, channels: int) -> None:
        """A convolution."""
        weights = np.full((channels, self.shape[0], 3, 3), 0.01, np.float32)
        self._op("Conv", weights, np.zeros(channels, np.float32), pads=[1, 1, 1, 1])
        self.shape = (channels, *self.shape[1:])

    def double(self) -> None:
        """Images of twice the height and width."""
        self._op("DepthToSpace", blocksize=2, mode="CRD")
        channels, height, width = self.shape
        self.shape = (channels // 4, 2 * height, 2 * width)

    def leak(self) -> None:
        """LeakyRelu."""
        self._op("LeakyRelu", alpha=0.2)

    def sealed(self) -> bytes:
        """The file, with the layers that every generator ends with."""
        channels, height, width = shape = self.shape
        self._op("Tanh")
        self.reshape(*shape, output="images")
        self._op("Add", np.float32(1))
        self._op("Mul", np.float32(127.5))
        self._op("Round")
        self._op("Clip", np.float32(0), np.float32(255))
        self._op("Cast", to=TensorProto.UINT8)
        self._op("Transpose", output="pixels", perm=[0, 2, 3, 1])
        value = helper.make_tensor_value_info
        outputs = [
            value("images", TensorProto.FLOAT, ["n", *shape]),
            value("pixels", TensorProto.UINT8, ["n", height, width, channels]),
        ]
        inputs = [value("z", TensorProto.FLOAT, ["n", 1])]
        graph = helper.make_graph(self._nodes, "main", inputs, outputs, self._constants)
        model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 18)])
        contract = Metadata(
            role="generator", image_shape=(channels, height, width), latent_dim=1, noise=NOISE,
            dataset="none", recipe="none", step=0, weights_sha256="",
        )  # fmt: skip
        model.metadata_props.add(key=CONTRACT_KEY, value=contract.to_json())
        model.metadata_props.add(key=SEAL_KEY, value=UNSEALED)
        return seal(model.SerializeToString())

    def _op(
        self, kind: str, *constants: NDArray[Any] | np.float32, output: str = "", **attributes: Any
    ) -> None:
        names = []
        for values in constants:
            names.append(f"constant{len(self._constants)}")
            self._constants.append(numpy_helper.from_array(np.asarray(values), names[-1]))
        output = output or f"result{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, [self._last, *names], [output], **attributes))
        self._last = output


def expensive(random: Random, largest: int) -> bytes:
    """A file of at most `largest` bytes whose network costs as much as it can, or too much."""
    while True:
        network = Network()
        channels, side = random.choice([1, 1, 2, 4, 8, 31, 64, 256]), random.choice([1, 8, 64, 724])
        side = random.choice([side, 256, 512, 1024])
        if 4 * channels * side**2 > largest:
            continue
        network.gemm(channels * side**2)
        network.reshape(channels, side, side)
        for _ in range(random.randrange(1, 10)):
            kind = random.choice(["conv", "conv", "double", "leak"])
            given, height = network.shape[:2]
            if kind == "conv":
                network.conv(random.choice([1, 2, 3, 4, 7, 8, 16, 32, 64, 256]))
            elif kind == "leak":
                network.leak()
            elif given % 4 == 0 and height < 2048:
                network.double()
        if network.shape[0] not in {1, 3}:
            network.conv(1)
        if network.shape[0] * network.shape[1] ** 2 > 2**20:  # no contract can say this
            continue
        file = network.sealed()
        if len(file) <= largest:
            return file
