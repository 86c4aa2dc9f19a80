"""The names of the files in an artifact folder, and hints for other files of ganpack."""

from dataclasses import dataclass
from pathlib import Path

GENERATOR_FILE = "generator.onnx"
"""The generator: noise in, images out. `Sampler` uses this file."""
SAMPLER_FILE = "sampler.onnx"
"""Noise stream and generator: seed, start and count in, images out."""
TORCHSCRIPT_FILE = "generator.ts"
"""The generator in TorchScript, for PyTorch."""
PARITY_FILE = "parity.json"
"""The comparison of each file with PyTorch."""
CARD_FILE = "README.md"
"""The model card."""
PICTURE_FILE = "samples.png"
"""The picture in the model card."""

ARTIFACT_FILES = frozenset(
    {GENERATOR_FILE, SAMPLER_FILE, TORCHSCRIPT_FILE, PARITY_FILE, CARD_FILE, PICTURE_FILE}
)


def generator_file(path: Path) -> Path:
    """The generator file in an artifact folder; any other path is returned unchanged."""
    try:
        is_folder = path.is_dir()
    except OSError:  # too long, or in a folder that may not be entered: reading it says so
        is_folder = False
    return path / GENERATOR_FILE if is_folder else path


@dataclass(frozen=True)
class _Other:
    """A file of ganpack that no sampler can open."""

    name: str
    begins: bytes
    contains: bytes
    """Text in its first or last bytes."""
    instead: str


_ENDS = 4096  # bytes that are looked at, from the beginning and from the end
_ARTIFACT = f"give the folder, or {GENERATOR_FILE}"
_RUN = "give the artifact folder of the run; `python -m export.run` makes it"
_OTHERS = (
    _Other(PARITY_FILE, b"{", b'"reference": "PyTorch in float64', _ARTIFACT),
    _Other(CARD_FILE, b"---", b"library_name: ganpack", _ARTIFACT),
    _Other(TORCHSCRIPT_FILE, b"PK", b"/extra/ganpack", _ARTIFACT),
    _Other("checkpoint", b"PK", b"ganpack sha256: ", _RUN),
    _Other("best.json", b"{", b'"checkpoint": "checkpoints/', _RUN),
    _Other("config.json", b"{", b'"config": {', _RUN),
    _Other("metrics.jsonl", b'{"kind": ', b'"step": ', _RUN),
    _Other("report.html", b"<!doctype html>", b": report</title>", _RUN),
)


def described(file: bytes) -> str | None:
    """A hint for another file of ganpack: its name, and what to give instead; None if unknown."""
    ends = file[:_ENDS] + file[-_ENDS:]
    for other in _OTHERS:
        if file.startswith(other.begins) and other.contains in ends:
            return f"this is ganpack's {other.name}: {other.instead}"
    return None


def without_generator(folder: Path) -> str | None:
    """A hint for a folder without a generator.onnx: what to give instead; None if unknown."""
    artifact = folder / "artifact"
    if (artifact / GENERATOR_FILE).is_file():
        return f"this is the folder of a run: give {artifact}"
    if (folder / "checkpoints").is_dir():
        return "this is the folder of a run without an artifact: `python -m export.run` makes one"
    return None
