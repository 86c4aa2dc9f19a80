"""An artifact's generator, loaded: z in, pixels out. Nothing in a file is believed unchecked."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .artifact import CONTRACT_KEY, SEAL_MARKER, ArtifactError, Metadata, verify_seal
from .file_kinds import looks_like
from .model_file import read_model
from .noise import NOISE
from .own_graph import widest
from .session import open_session, run_session

GENERATOR_FILE = "generator.onnx"

# Images in one run of the network: larger ones fall out of the processor's cache.
_TILE = 512
_MOST_VALUES_IN_A_TILE = 2**22


class LoadedGenerator(Protocol):
    """What `Sampler` draws with."""

    metadata: Metadata
    """What the file says about itself."""
    provider: str
    """Where it really runs: "cpu" or "cuda:N"."""
    tile: int
    """The most images to draw at once."""

    def draw(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Pixels, uint8 (n, H, W, C), of z, float32 (n, latent_dim), n at most `tile`."""


class OwnGenerator:
    """A generator that ganpack exported."""

    def __init__(self, model: bytes, provider: str, threads: int) -> None:
        """Raise ArtifactError unless the file is whole, ours, and what its contract says.

        onnxruntime sees no byte of it before its seal and its graph are found to be good.
        """
        if SEAL_MARKER not in model:
            raise ArtifactError(looks_like(model))
        verify_seal(model)
        file = read_model(model)
        if CONTRACT_KEY not in file.metadata:
            raise ArtifactError("it carries no contract")
        self.metadata = Metadata.from_json(file.metadata[CONTRACT_KEY])
        _require_role(self.metadata)
        values = widest(file, self.metadata.latent_dim)
        self.tile = max(1, min(_TILE, _MOST_VALUES_IN_A_TILE // values))
        self._session, self.provider = open_session(model, provider, threads)
        _require_shapes(self._session, self.metadata)

    def draw(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Pixels, uint8 (n, H, W, C), of z, float32 (n, latent_dim)."""
        channels, height, width = self.metadata.image_shape
        (pixels,) = run_session(self._session, ["pixels"], {"z": z})
        if pixels.shape != (len(z), height, width, channels):
            raise ArtifactError(f"it drew pixels of {pixels.shape}, not what its contract says")
        return np.asarray(pixels)


def _require_role(metadata: Metadata) -> None:
    if metadata.role != "generator":
        raise ArtifactError(f"this is its {metadata.role} file, Python draws from {GENERATOR_FILE}")
    if metadata.noise != NOISE:
        raise ArtifactError(f"its noise is {metadata.noise}, this version draws {NOISE}")
    if metadata.classes:
        raise ArtifactError("its generator takes labels, which this version cannot give it")


def _require_shapes(session: Any, metadata: Metadata) -> None:
    """Raise ArtifactError unless the graph takes and gives what the contract says."""
    channels, height, width = metadata.image_shape
    expected = {
        "z": ("tensor(float)", [metadata.latent_dim]),
        "images": ("tensor(float)", [channels, height, width]),
        "pixels": ("tensor(uint8)", [height, width, channels]),
    }
    values = [*session.get_inputs(), *session.get_outputs()]
    found = {value.name: (value.type, list(value.shape[1:])) for value in values}
    batches = [value.shape[0] for value in values if value.shape]
    if found != expected or any(isinstance(batch, int) for batch in batches):
        raise ArtifactError(
            f"its graph is not what its contract says: {found}, expected {expected}"
        )
