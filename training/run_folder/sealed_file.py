"""The .pt files of a run: written whole, with a checksum, and read without executing code."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from inference.errors import GanpackError
from inference.writing.files import atomic_write

FORMAT_VERSION = 1
_MARK = b"ganpack sha256: "
_SEAL = len(_MARK) + 64


class CheckpointError(GanpackError):
    """A file of a run is missing, damaged, or of another format; the message says which."""


class DamagedError(CheckpointError):
    """It is not as it was written, or never was ours."""


def load(path: Path) -> dict[str, Any]:
    """The content of one of our .pt files, on the CPU.

    Raises:
        CheckpointError: if it is missing or of another format version; DamagedError if its
            checksum is missing or wrong, or it is not ours.
    """
    try:
        file = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    damaged = f"{path} cannot be read, it is damaged or not ours"
    content, mark, digest = file[:-_SEAL], file[-_SEAL:-64], file[-64:]
    if mark != _MARK:
        raise DamagedError(f"{damaged}: it has no checksum at its end")
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise DamagedError(
            f"{damaged}: its sha256 is not {digest[:12].decode('ascii', 'replace')}…"
        )
    try:
        values: dict[str, Any] = torch.load(BytesIO(file), map_location="cpu", weights_only=True)
    except Exception as error:  # of whatever type: with its checksum in order it is not ours
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DamagedError(f"{damaged}: {reason}") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint format {version}, this version reads {FORMAT_VERSION}"
        )
    return values


def save(content: dict[str, Any], path: Path, *, keep_as: Path | None = None) -> None:
    """Write a .pt file whole, with its checksum; keep_as: as `atomic_write` has it.

    It is the zip of `torch.save`, which checks nothing on loading, with the sha256 of all that is
    before it as its comment: `torch.load` reads it too.
    """
    buffer = BytesIO()
    torch.save(content, buffer)
    archive = buffer.getvalue()
    assert archive[-22:-18] == b"PK\5\6"  # the last record of a zip, which ends with the length
    assert archive[-2:] == b"\0\0"  # of its comment
    archive = archive[:-2] + _SEAL.to_bytes(2, "little")
    with atomic_write(path, keep_as=keep_as) as file:
        file.write(archive)
        file.write(_MARK + hashlib.sha256(archive).hexdigest().encode())
