"""A generator as the files `generator.onnx` and `generator.ts`."""

import io
import warnings
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from inference.artifact import CONTRACT_KEY, SEAL_KEY, UNSEALED, Metadata, seal
from training.engine.precision import known_settings
from training.gan.networks import Generator, to_pixels

if TYPE_CHECKING:
    import onnx


# onnxruntime 1.16 and later read these.
_OPSET = 18
_IR_VERSION = 8


@known_settings()
def export_graph(generator: Generator) -> "onnx.ModelProto":
    """The ONNX graph z -> images, pixels, of a copy in eval mode. The generator is not changed.

    A conditional generator takes labels, int64 (n), too. The file contains the weights, takes any
    batch size, and has BatchNorm folded into the layers before it. It contains no local path.
    """
    import onnx

    example = _example(generator)
    names = ["z", "labels"][: len(example)]
    n = torch.export.Dim("n")
    with warnings.catch_warnings():
        # PyTorch 2.11 warns about its own code.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        # It says that labels have as many rows as z, which is intended.
        warnings.filterwarnings("ignore", "# The axis name: n will not be used", UserWarning)
        program = torch.onnx.export(
            _WithPixels(_copy(generator)).eval(),
            example,
            dynamo=True,
            external_data=False,
            opset_version=_OPSET,
            input_names=names,
            output_names=["images", "pixels"],
            dynamic_shapes={name: {0: n} for name in names},
            verbose=False,
        )
    assert program is not None  # None only with the old exporter
    model = program.model_proto
    model.ir_version = _IR_VERSION
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces, with local paths
    onnx.checker.check_model(model, full_check=True)
    return model


def onnx_file(graph: "onnx.ModelProto", metadata: Metadata) -> bytes:
    """The bytes of generator.onnx: the graph with its contract and its seal."""
    import onnx

    model = onnx.ModelProto()
    model.CopyFrom(graph)
    model.metadata_props.add(key=CONTRACT_KEY, value=metadata.to_json())
    model.metadata_props.add(key=SEAL_KEY, value=UNSEALED)
    return seal(model.SerializeToString(deterministic=True))


@known_settings()
def write_torchscript(generator: Generator, metadata: Metadata, path: Path) -> None:
    """Write generator.ts, z (and labels) -> images, of a copy in eval mode.

    Its contract is in the extra files.
    """
    saved = io.BytesIO()
    with warnings.catch_warnings():
        _allow_torchscript()
        traced = torch.jit.trace(_copy(generator), _example(generator))
        frozen = torch.jit.freeze(traced)
        torch.jit.save(frozen, saved, _extra_files={CONTRACT_KEY: metadata.to_json()})
    # Everything except the source locations, which are local paths.
    with zipfile.ZipFile(saved) as archive, zipfile.ZipFile(path, "w") as clean:
        for name in archive.namelist():
            if not name.endswith(".debug_pkl"):
                clean.writestr(zipfile.ZipInfo(name), archive.read(name))


def load_torchscript(path: Path, device: str) -> torch.jit.ScriptModule:
    """Load the generator in a generator.ts file."""
    with warnings.catch_warnings():
        _allow_torchscript()
        module: torch.jit.ScriptModule = torch.jit.load(path, map_location=device)
    return module


def _example(generator: Generator) -> tuple[Tensor, ...]:
    """Inputs to trace with; their values do not end up in the graph."""
    z = torch.zeros(2, generator.latent_dim)
    return (z, torch.zeros(2, dtype=torch.long)) if generator.classes else (z,)


def _copy(generator: Generator) -> Generator:
    return deepcopy(generator).cpu().float().eval()


def _allow_torchscript() -> None:
    """Silence the deprecation of TorchScript (PyTorch 2.11), which still works."""
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)")


class _WithPixels(nn.Module):
    """A generator that also gives its images as uint8 (n, H, W, C)."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        images: Tensor = self.generator(z, labels)
        return images, to_pixels(images)
