"""Weights in float16: an artifact of half the size, if the score of its images stays the same."""

import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from export.generator_files import onnx_file
from export.parity import ParityError
from export.scoring import RealImages, score
from inference.artifact import Metadata
from inference.model_files.artifact_files import GENERATOR_FILE
from training.config import DataConfig
from training.gan.networks import Generator

if TYPE_CHECKING:
    import onnx

_FCD_TOLERANCE = 0.05


@dataclass(frozen=True)
class HalfPrecision:
    """A generator whose weights are stored in float16."""

    graph: "onnx.ModelProto"
    generator: Generator
    """The PyTorch generator with rounded weights, for the comparison with the files."""
    scores: dict[str, float]
    """FCD of the file with float32 weights, and of the file with float16 weights."""


def half_precision(
    graph: "onnx.ModelProto",
    generator: Generator,
    metadata: Metadata,
    data: DataConfig,
    data_dir: Path,
) -> HalfPrecision:
    """Store the weights of the generator's `graph` in float16.

    Raises:
        ParityError: if the FCD of the images changes by more than 5 %.
        DataError: if the data set for the scores cannot be loaded.
    """
    half = half_weights(graph)
    fcd = [_fcd(onnx_file(model, metadata), data, data_dir) for model in (graph, half)]
    if not abs(fcd[1] - fcd[0]) <= _FCD_TOLERANCE * fcd[0]:
        raise ParityError(
            f"with float16 weights FCD is {fcd[1]:.4g} instead of {fcd[0]:.4g}, more than "
            f"{_FCD_TOLERANCE:.0%} away: export this snapshot with --precision fp32"
        )
    scores = {"fcd_fp32_file": fcd[0], "fcd_fp16_file": fcd[1]}
    return HalfPrecision(half, _with_weights(generator, half), scores)


def _with_weights(generator: Generator, graph: "onnx.ModelProto") -> Generator:
    """A copy of the generator with the weights of the graph, which include BatchNorm."""
    from onnx import numpy_helper

    copy = deepcopy(generator).cpu().float().eval()
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    cast = {node.output[0]: node.input[0] for node in graph.graph.node if node.op_type == "Cast"}
    products = (node for node in graph.graph.node if node.op_type in {"Gemm", "Conv"})
    layers = (layer for layer in copy.layers if isinstance(layer, nn.Linear | nn.Conv2d))
    with torch.no_grad():
        for product, layer in zip(products, layers, strict=True):
            for name, parameter in zip(product.input[1:], layer.parameters(), strict=True):
                parameter.copy_(torch.from_numpy(kept[cast[name]].astype(np.float32)))
    norms = nn.BatchNorm1d | nn.BatchNorm2d
    rest = [layer for layer in copy.layers if not isinstance(layer, norms)]
    copy.layers = nn.Sequential(*rest)
    return copy


def _fcd(file: bytes, data: DataConfig, data_dir: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / GENERATOR_FILE
        path.write_bytes(file)
        (scored,) = score(path, RealImages(data, data_dir))
    return scored.scores.fcd


def half_weights(graph: "onnx.ModelProto") -> "onnx.ModelProto":
    """The graph with its weights stored in float16 and cast to float32 before use.

    The file has half the size. Arithmetic, inputs and outputs stay float32, so no float16 kernels
    are needed; onnxruntime casts once, when it loads the file.

    Raises:
        ParityError: if a weight is too large for float16.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(graph)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 0:
            name = tensor.name
            with np.errstate(over="ignore"):
                half = numpy_helper.to_array(tensor).astype(np.float16)
            if not np.isfinite(half).all():
                raise ParityError(
                    f"weights of {name} are too large for float16: export this snapshot with "
                    f"--precision fp32"
                )
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        model.graph.node.insert(0, cast)
    onnx.checker.check_model(model, full_check=True)
    return model
