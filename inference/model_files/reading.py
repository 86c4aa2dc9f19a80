"""Read a file that may be no artifact, and say what it looks like."""

from pathlib import Path

from ..artifact import CONTRACT_KEY, LARGEST_FILE, ArtifactError
from ..onnx_format.onnx_file import read_model
from ..onnx_format.wire import CutShortError
from ..writing.plain_file import read_plain
from .artifact_files import GENERATOR_FILE, described, without_generator

_MOST_PARTS = 2**18  # takes a quarter of a second to read
_BEGINNINGS = {
    b"version https://git-lfs": "a git-LFS pointer, not the file itself: `git lfs pull` gets it",
    b"PK\x03\x04": "a zip archive, such as TorchScript (generator.ts) or a PyTorch checkpoint: "
    "Python uses generator.onnx",
    b"\x80": "a Python pickle, such as an old PyTorch checkpoint",
    b"\x89PNG": "a picture",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"GGUF": "a GGUF file",
    b"{": "JSON",
}


def read_file(path: Path) -> bytes:
    """The content of a file that may be an artifact.

    Raises:
        ArtifactError: if the file does not exist, is no regular file, or is absurdly large.
    """
    try:
        return read_plain(path, LARGEST_FILE)
    except FileNotFoundError as error:
        found = without_generator(path.parent) if path.name == GENERATOR_FILE else None
        raise ArtifactError(found or _expected(error)) from None
    except OSError as error:
        raise ArtifactError(_expected(error)) from None


def _expected(error: OSError) -> str:
    return (
        f"{error.strerror}. Expected an artifact folder, or its generator.onnx; "
        f"`python -m export.run` makes one"
    )


def looks_like(file: bytes) -> str:
    """Describe a file without a seal: what it is instead of an artifact."""
    if not file:
        return "empty: the copy or download of it failed"
    if own := described(file):
        return own
    for beginning, words in _BEGINNINGS.items():
        if file.startswith(beginning):
            return f"not written by ganpack: it looks like {words}"
    head = file[:512].lstrip().lower()
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return (
            "not written by ganpack: it looks like an HTML page, as a server sends it in place of "
            "a file that it will not give or does not have"
        )
    return _without_seal(file)


def _without_seal(file: bytes) -> str:
    try:
        model = read_model(file, _MOST_PARTS)
    except CutShortError as error:
        return str(error)
    except ArtifactError as error:
        return f"not written by ganpack: {error}"
    if CONTRACT_KEY in model.metadata:
        return (
            "changed since it was exported: it has a contract and no seal. Copy or export it "
            "again; if you trust it, allow_foreign=True accepts it"
        )
    return (
        "not written by ganpack: it looks like another program's ONNX model, without a contract"
        f"{' and its weights outside the file' if model.external else ''}. "
        "Sampler(..., allow_foreign=True) accepts it, if it is a generator that you trust"
    )
