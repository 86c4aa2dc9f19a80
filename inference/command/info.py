"""What an artifact is, in ten lines: `python -m inference.run ARTIFACT --info`."""

from collections.abc import Mapping
from typing import Any

from ..artifact import Metadata
from ..errors import presentable

_MOST_NAMES = 20


def summary(metadata: Metadata) -> str:
    """The contract for a reader."""
    channels, height, width = metadata.image_shape
    count = len(metadata.classes)
    names = ", ".join(metadata.classes[:_MOST_NAMES]) + (", …" if count > _MOST_NAMES else "")
    facts = {
        "data set": metadata.dataset,
        "recipe": f"{metadata.recipe}, step {metadata.step:,}",
        "images": f"{width}×{height}, {'grey' if channels == 1 else 'colour'}",
        "classes": f"{count}: {names}" if count else "none: it takes no label",
        "noise": f"{metadata.latent_dim} numbers an image, {metadata.noise}",
        "weights": f"{metadata.precision}, sha256 {metadata.weights_sha256}",
        "scores": _listed(metadata.scores) or "none",
        "parity": _listed(metadata.parity) or "not compared with PyTorch",
        "golden": f"{len(metadata.golden)} images, which --check generates again",
        "made with": ", ".join(f"{name} {number}" for name, number in metadata.versions.items()),
    }
    return "\n".join(f"{name + ':':10} {presentable(fact)}" for name, fact in facts.items())


def _listed(values: Mapping[str, Any]) -> str:
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in numbers.items()
    )
