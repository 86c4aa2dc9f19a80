"""ONNX generators of other programs: one input z, one image tensor out, no contract.

Artifacts that were changed after their export belong here, too; they may take labels.

Such a file cannot be verified: onnxruntime runs any graph in it, at any cost.
"""

from dataclasses import dataclass
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..artifact import (
    CONTRACT_KEY,
    LONGEST_Z,
    PIXEL_TOLERANCE,
    SEAL_MARKER,
    ArtifactError,
    Metadata,
)  # fmt: skip
from ..noise import NOISE, latents
from ..onnx_format.onnx_file import read_model
from ..onnx_format.parts import ModelFile
from ..runtime.session import SessionSettings, say
from ..runtime.shared_session import Session
from .reading import looks_like

if TYPE_CHECKING:
    from ..gpu.painter import GpuPainter

_TILE = 64
_MOST_IMAGES = 2**12  # of a fixed batch
_MOST_ONES = 4  # axes of z after the second
_TRIED = 8  # images that are generated twice, to see whether they depend on chance
_RANGES = {"Tanh": (-1.0, 1.0), "Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0)}
# numpy has these, and each of their values is a number.
_NUMBERS = {
    f"tensor({name})"
    for name in ("float", "float16", "double", "uint8", "int8", "uint16", "int16", "uint32",
                 "int32", "uint64", "int64")
}  # fmt: skip
_MOVE_VALUES = {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Cast"}


@dataclass(frozen=True)
class ForeignOptions:
    """Facts that a graph may not contain; None to read them from the graph."""

    latent_dim: int | None = None
    image_shape: tuple[int, int, int] | None = None
    """(C, H, W)."""
    value_range: tuple[float, float] | None = None
    """The values of black and of white."""

    def __post_init__(self) -> None:
        """Raise ValueError for an impossible fact."""
        if self.latent_dim is not None and self.latent_dim < 1:
            raise ValueError(f"latent_dim must be at least 1, got {self.latent_dim}")
        shape, levels = self.image_shape, self.value_range
        if shape is not None and (len(shape) != 3 or min(shape) < 1):
            raise ValueError(f"image_shape must be (C, H, W), got {shape}")
        if levels is not None and not (len(levels) == 2 and -inf < levels[0] < levels[1] < inf):
            raise ValueError(f"value_range must be (low, high), got {levels}")


class ForeignGenerator:
    """A generator of another program."""

    def __init__(
        self,
        model: bytes,
        path: Path | None,
        settings: SessionSettings,
        options: ForeignOptions,
    ) -> None:
        """Raise ArtifactError if it is no generator, or a fact is missing from the graph."""
        try:
            file = read_model(model)
        except ArtifactError:
            raise ArtifactError(looks_like(model)) from None
        if SEAL_MARKER in model:
            say("using a file that was changed since ganpack sealed it")
        external = has_weights_beside(file, path)
        source: bytes | Path = path if external and path else model
        self.session = Session(source, settings, convolutions=file.has_convolutions)
        z, self._output, labels = _inputs_and_output(self.session.raw)
        self._input, self._label_input = z.name, labels.name if labels else None
        classes = _classes(file) if labels else ()
        if labels and not classes:
            raise ArtifactError("it takes labels, and it has no contract that names the classes")
        batch, latent_dim, self._ones = _latent_shape(z.shape, options.latent_dim)
        self.tile = batch or _TILE
        self.painter: GpuPainter | None = None  # the host makes the pixels
        self._fixed = batch is not None
        image = self._images(latents(1, latent_dim), np.zeros(1, np.int64))
        shape, self._channels_last = _image_shape(image.shape[1:], options.image_shape)
        self._shape = shape
        self._range = options.value_range or _value_range(file, self._output, image.dtype)
        self.metadata = Metadata(
            role="generator", image_shape=shape, latent_dim=latent_dim, noise=NOISE,
            dataset="unknown", recipe="unknown", step=0, weights_sha256="unknown", classes=classes,
        )  # fmt: skip
        self._require_independent()

    def generate(
        self, z: NDArray[np.float32], labels: NDArray[np.int64] | None, out: NDArray[np.uint8]
    ) -> None:
        """Write the pixels, uint8 (n, H, W, C), of z, float32 (n, latent_dim), and labels (n,)."""
        channels, height, width = self._shape
        images = self._images(z, labels)
        if images.size != len(z) * prod(self._shape):
            raise ArtifactError(f"it gave {images.shape} for {len(z)} images of {self._shape}")
        if self._channels_last:
            images = images.reshape(len(z), height, width, channels)
        else:
            images = images.reshape(len(z), channels, height, width).transpose(0, 2, 3, 1)
        low, high = self._range
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is black or white
            levels = (images.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low))
        out[...] = np.nan_to_num(levels.round()).clip(0, 255)

    def _require_independent(self) -> None:
        """Raise ArtifactError if an image depends on its batch or on chance.

        BatchNorm in training mode and random nodes make such images.
        """
        channels, height, width = self._shape
        z = latents(min(self.tile, _TRIED), self.metadata.latent_dim, seed=1)
        images = []
        for count in (1, len(z), len(z)):
            out = np.empty((count, height, width, channels), np.uint8)
            self.generate(z[:count], np.zeros(count, np.int64), out)
            images.append(out[0].astype(int))
        apart = max(int(np.abs(other - images[0]).max()) for other in images[1:])
        if apart > PIXEL_TOLERANCE:
            raise ArtifactError(
                f"it gives several images for one z, {apart} grey levels apart: they "
                f"depend on the other images of a call, or on chance (BatchNorm or Dropout in "
                f"training mode, random nodes). Export it in inference mode"
            )

    def _images(self, z: NDArray[np.float32], labels: NDArray[np.int64] | None) -> NDArray[Any]:
        """The output of the graph, (n, ...)."""
        whole = self._batch(z)
        feeds: dict[str, NDArray[Any]]
        feeds = {self._input: whole.reshape(*whole.shape, *[1] * self._ones)}
        if self._label_input is not None and labels is not None:
            feeds[self._label_input] = self._batch(labels)
        (images,) = self.session.run([self._output], feeds)
        if images.ndim < 2 or len(images) != len(whole) or not images.size:
            raise ArtifactError(f"it gave {images.shape} for {len(whole)} images")
        return np.asarray(images[: len(z)])

    def _batch(self, values: NDArray[Any]) -> NDArray[Any]:
        """The values of some images, (n, ...), as the graph takes them.

        If it takes one batch size only, the batch is filled up with zeros.
        """
        if not self._fixed:
            return values
        whole = np.zeros((self.tile, *values.shape[1:]), values.dtype)
        whole[: len(values)] = values
        return whole


def _inputs_and_output(session: Any) -> tuple[Any, str, Any]:
    """z, the name of the output that has the images, and the labels if it takes some."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = [value.name for value in outputs]
    labels = None
    if {"images", "pixels"} <= set(names):  # ours, changed after its export
        names = ["pixels"]
        labels = next((x for x in inputs if (x.name, x.type) == ("labels", "tensor(int64)")), None)
    others = [value for value in inputs if value is not labels]
    kinds = [value.type for value in others]
    given = [value.type for value in outputs if value.name in names]
    if kinds != ["tensor(float)"] or len(given) != 1 or given[0] not in _NUMBERS:
        raise ArtifactError(
            f"a generator has one float32 input and one output of numbers, this has "
            f"{[(value.name, value.type) for value in (*inputs, *outputs)]}"
        )
    return others[0], names[0], labels


def _classes(file: ModelFile) -> tuple[str, ...]:
    """The classes in the contract of an artifact that was changed; empty if there is none."""
    try:
        return Metadata.from_json(file.metadata[CONTRACT_KEY]).classes
    except (KeyError, ArtifactError):
        return ()


def has_weights_beside(file: ModelFile, path: Path | None) -> bool:
    """Whether weights lie in files beside a model; raise ArtifactError where they lie elsewhere."""
    for tensor in file.external:
        # onnxruntime looks for the files of functions and nodes in the working directory.
        if file.initializers.get(tensor.name) is not tensor:
            raise ArtifactError(
                f"{tensor.name!r} is a constant of a node or function, and kept outside the file: "
                f"only weights of the graph itself may be"
            )
    for name in sorted({tensor.external["location"] for tensor in file.external}):
        if path is None:
            raise ArtifactError(
                f"its weights are in another file, {name!r}: pass a path instead of bytes"
            )
        # Only a plain name, because folders, drives or links could lead elsewhere.
        plain = name and name not in {".", ".."} and not set(name) & set("/\\:\0")
        try:
            beside = path.parent / name
            if not plain or beside.is_symlink():
                raise ArtifactError(
                    f"its weights are said to be in {name!r}, which is outside its folder"
                )
            there = beside.is_file()
        except OSError as error:  # the name is too long
            raise ArtifactError(f"its weights are said to be in {name!r}: {error}") from None
        if not there:
            raise ArtifactError(f"its weights are missing: {name!r} must be in the same folder")
    return bool(file.external)


def _latent_shape(shape: list[Any], latent_dim: int | None) -> tuple[int | None, int, int]:
    """Read the input's shape: (batch size or None for any, latent_dim, number of axes of 1)."""
    ones = len(shape) - 2
    if not 0 <= ones <= _MOST_ONES or any(axis != 1 for axis in shape[2:]):
        raise ArtifactError(f"z must be (n, latent_dim) or (n, latent_dim, 1, 1), it is {shape}")
    batch = shape[0] if isinstance(shape[0], int) else None
    if batch is not None and not 1 <= batch <= _MOST_IMAGES:
        raise ArtifactError(
            f"its batches have {batch:,} images: 1 to {_MOST_IMAGES:,}, or any number, are possible"
        )
    found = shape[1] if isinstance(shape[1], int) else latent_dim
    if found is None:
        raise ArtifactError(f"its graph does not say how long z is ({shape}): pass latent_dim")
    if latent_dim not in {None, found}:
        raise ArtifactError(f"its z has {found} values, not {latent_dim}")
    if not 1 <= found <= LONGEST_Z:
        raise ArtifactError(f"its z has {found:,} values: 1 to {LONGEST_Z:,} are possible")
    return batch, found, ones


def _image_shape(
    found: tuple[int, ...], wanted: tuple[int, int, int] | None
) -> tuple[tuple[int, int, int], bool]:
    """Read an image's shape: (C, H, W), and whether the channels come last."""
    if wanted is not None:
        if np.prod(found) != np.prod(wanted):
            raise ArtifactError(f"an image of it is {found}, which is not {wanted}")
        channels, height, width = wanted
        return wanted, found == (height, width, channels) and found != wanted
    if len(found) == 2 and min(found) > 1:
        return (1, *found), False
    if len(found) == 3 and found[0] in {1, 3}:
        return (found[0], found[1], found[2]), False
    if len(found) == 3 and found[2] in {1, 3}:
        return (found[2], found[0], found[1]), True
    raise ArtifactError(f"an image of it is {found}: pass image_shape=(C, H, W)")


def _value_range(file: ModelFile, output: str, dtype: np.dtype[Any]) -> tuple[float, float]:
    """The range of values that the last operation in the graph gives."""
    if dtype == np.uint8:
        return 0.0, 255.0
    makers = {name: node for node in file.nodes for name in node.outputs}
    for _ in file.nodes:
        node = makers.get(output)
        if node is None:
            break
        if node.op_type in _RANGES:
            return _RANGES[node.op_type]
        if node.op_type not in _MOVE_VALUES or not node.inputs:
            break
        output = node.inputs[0]
    raise ArtifactError("its graph does not say which values are black and white: pass value_range")
