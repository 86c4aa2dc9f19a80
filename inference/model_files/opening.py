"""Open the generator of an artifact, or with permission the generator of another program."""

from os import PathLike
from pathlib import Path

from ..artifact import ArtifactError, is_sealed
from ..runtime.session import SessionSettings
from .artifact_files import generator_file
from .own import LoadedGenerator, OwnGenerator
from .reading import read_file

ForeignFacts = tuple[int | None, tuple[int, int, int] | None, tuple[float, float] | None]
"""The values of `ForeignOptions`, in order."""


def open_generator(
    artifact: str | PathLike[str] | bytes, settings: SessionSettings, foreign: ForeignFacts | None
) -> tuple[LoadedGenerator, bytes | Path]:
    """The generator, and what opens it again: the bytes of its file, or a path.

    artifact: an artifact folder, its generator file, or the bytes of this file.
    foreign: facts about a generator of another program; None: refuse such generators.

    Raises:
        ArtifactError: if the file is missing, damaged, or no artifact of this format.
        ProviderError: if CUDA was asked for and cannot be used.
    """
    path = None if isinstance(artifact, bytes) else generator_file(Path(artifact))
    try:
        model = artifact if isinstance(artifact, bytes) else read_file(Path(path or ""))
        if foreign is None or is_sealed(model):
            return OwnGenerator(model, settings), model
        from .foreign import ForeignGenerator, ForeignOptions  # most hosts never need it

        # A foreign generator may have its weights in files beside it.
        return ForeignGenerator(model, path, settings, ForeignOptions(*foreign)), path or model
    except ArtifactError as error:
        raise ArtifactError(f"{path or 'artifact'}: {error}") from None
