"""The files of an artifact folder, by their names."""

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
