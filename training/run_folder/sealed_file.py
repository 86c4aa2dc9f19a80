"""The .pt files of a run: written atomically, with a checksum, and read without running code."""

import hashlib
import os
import pickle
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from inference.errors import GanpackError
from inference.writing.files import atomic_write
from inference.writing.plain_file import open_plain

FORMAT_VERSION = 1
_MARK = b"ganpack sha256: "
_SEAL = len(_MARK) + 64
_MOST_BYTES = 2**34


class CheckpointError(GanpackError):
    """A .pt file is missing, damaged or of another format; the message says which."""


class DamagedError(CheckpointError):
    """The file is corrupted, or ganpack did not write it."""


def load(path: Path) -> dict[str, Any]:
    """The content of one of our .pt files, on the CPU.

    Raises:
        CheckpointError: if the file is missing or of another format version.
        DamagedError: if its checksum is missing or wrong, or ganpack did not write it.
    """
    damaged = f"{path} cannot be read, it is damaged or not ours"
    try:
        with open_plain(path, _MOST_BYTES) as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - _SEAL))
            if not opened.read(_SEAL).startswith(_MARK):  # before gigabytes of others are read
                raise DamagedError(f"{damaged}: it has no checksum at its end")
            opened.seek(0)
            file = opened.read(size)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    content, digest = memoryview(file)[:-_SEAL], file[-64:]
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise DamagedError(
            f"{damaged}: its sha256 is not {digest[:12].decode('ascii', 'replace')!r}"
        )
    values: dict[str, Any] = _unpacked(file, damaged)
    version = values.get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint format {str(version)[:40]}, this version reads {FORMAT_VERSION}"
        )
    return values


def _unpacked(file: bytes, damaged: str) -> Any:
    """The content of a file with a correct checksum, which is not ours if this fails.

    damaged: the beginning of the message then.
    """
    try:
        with zipfile.ZipFile(BytesIO(file)) as archive:
            if any(each.compress_type != zipfile.ZIP_STORED for each in archive.infolist()):
                raise DamagedError(f"{damaged}: it is compressed, and could fill the memory")
        return torch.load(BytesIO(file), map_location="cpu", weights_only=True)
    except DamagedError:
        raise
    except pickle.UnpicklingError:  # PyTorch's message advises to run whatever the file holds
        raise DamagedError(
            f"{damaged}: it holds something else than tensors and plain values, which could run "
            f"code when it is loaded"
        ) from None
    except Exception as error:
        raise DamagedError(f"{damaged}: {type(error).__name__} when it was unpacked") from None


def save(content: dict[str, Any], path: Path, *, keep_as: Path | None = None) -> None:
    """Write a .pt file atomically, with a checksum.  keep_as: see `atomic_write`.

    The file is the zip archive of `torch.save`, with the sha256 of all bytes before it as the
    archive's comment. `torch.load`, which checks nothing itself, reads it as well.
    """
    buffer = BytesIO()
    torch.save(content, buffer)
    archive = buffer.getbuffer()  # not a copy: a state may be large
    assert bytes(archive[-22:-18]) == b"PK\5\6"  # a zip archive ends with this record, and
    assert bytes(archive[-2:]) == b"\0\0"  # the record with the length of the comment
    archive[-2:] = _SEAL.to_bytes(2, "little")
    with atomic_write(path, keep_as=keep_as) as file:
        file.write(archive)
        file.write(_MARK + hashlib.sha256(archive).hexdigest().encode())
