"""The files of an artifact folder, by their names."""

from pathlib import Path

GENERATOR_FILE = "generator.onnx"
"""Noise in, images out: what `Sampler` draws from."""
SAMPLER_FILE = "sampler.onnx"
"""Seed, start and count in, images out."""
TORCHSCRIPT_FILE = "generator.ts"
"""The generator for PyTorch."""
PARITY_FILE = "parity.json"
"""How far each file is from PyTorch."""
CARD_FILE = "README.md"
"""The model card."""
PICTURE_FILE = "samples.png"
"""The picture in it."""

ARTIFACT_FILES = frozenset(
    {GENERATOR_FILE, SAMPLER_FILE, TORCHSCRIPT_FILE, PARITY_FILE, CARD_FILE, PICTURE_FILE}
)


def generator_file(path: Path) -> Path:
    """The file to draw from: the one in an artifact folder, or the file itself."""
    return path / GENERATOR_FILE if path.is_dir() else path
