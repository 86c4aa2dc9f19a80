"""Artifacts that are wrong but have a valid seal."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from inference.artifact import CONTRACT_KEY, SEAL_KEY, UNSEALED, seal

Change = Callable[[onnx.ModelProto], None]


def resealed(artifact: Path, change: Change) -> bytes:
    """A changed generator.onnx with a valid seal."""
    model = onnx.load(artifact / "generator.onnx")
    change(model)
    for entry in model.metadata_props:
        if entry.key == SEAL_KEY:
            entry.value = UNSEALED
    return seal(model.SerializeToString())


def contract_with(**values: Any) -> Change:
    def change(model: onnx.ModelProto) -> None:
        (entry,) = (entry for entry in model.metadata_props if entry.key == CONTRACT_KEY)
        entry.value = json.dumps({**json.loads(entry.value), **values})

    return change


def add_weights(model: onnx.ModelProto, name: str, *dims: int) -> None:
    tensor = model.graph.initializer.add(name=name, data_type=onnx.TensorProto.FLOAT, dims=dims)
    tensor.raw_data = b"\0" * (4 * math.prod(dims))
