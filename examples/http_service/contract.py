"""What goes in and out, as the service's OpenAPI document has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LAST = 2**63 - 1
"""The last seed, and the last image of a seed."""

MEDIA_TYPES = {"png": "image/png", "npy": "application/x-npy"}


@dataclass(frozen=True)
class Limits:
    """What one process takes on."""

    count: int = 1024
    """Images in one answer."""
    waiting: int = 8192
    """Images that were asked for and are not answered; what comes beyond gets a 429."""
    seconds: float = 10.0
    """How long a request waits for its images before it gets a 503."""
    cache_seconds: int = 365 * 24 * 3600
    """How long caches may keep an answer: it never changes, unless another artifact moves in."""


DEFAULTS = Limits()


class Images(BaseModel):
    """Which images."""

    model_config = ConfigDict(extra="forbid")  # a misspelt name is not taken for a default

    seed: int = Field(0, ge=0, le=LAST, description="Which stream of images.")
    start: int = Field(0, ge=0, le=LAST, description="Index of the first image.")
    count: int = Field(64, ge=1, description="How many; start + count may not exceed 2^63.")
    format: Literal["png", "npy"] = Field(
        "png",
        description="png: one image as it is, several as a grid. "
        "npy: numpy's format, uint8 (count, H, W), colour (count, H, W, 3).",
    )


def asked_label(query: Images) -> str | None:
    """The label in a query, which has a place for it only where there are classes."""
    label: str | None = getattr(query, "label", None)
    return label


def images_up_to(most: int, classes: Sequence[str] = ()) -> type[Images]:
    """`Images` with at most so many in one answer, and a label where there are classes."""

    class Bounded(Images):
        count: int = Field(
            min(64, most), ge=1, le=most, description=Images.model_fields["count"].description
        )

    if not classes:
        return Bounded
    labels = dict.fromkeys([*classes, *map(str, range(len(classes)))])

    class Labelled(Bounded):
        label: Literal[tuple(labels)] | None = Field(  # type: ignore[valid-type]
            None, description="Class of all images, by name or number (default: random ones)."
        )

    return Labelled


class Problem(BaseModel):
    """Why there are no images."""

    detail: str


class Health(BaseModel):
    """Whether this process generates the right images."""

    status: Literal["passed", "failed", "unchecked"]
    """Result of the golden images at the start; the first artifacts have none."""
    problem: str | None
    """Why no image can be generated."""
    provider: str
    """Where it runs: cpu or cuda:N."""
    artifact_sha256: str
    check: dict[str, Any] | None
    """How far the golden images are from PyTorch's."""


_RETRY = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait."}}

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images.",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}}
            for media_type in MEDIA_TYPES.values()
        },
        "headers": {
            "ETag": {"schema": {"type": "string"}},
            "Cache-Control": {"schema": {"type": "string"}},
        },
    },
    304: {"description": "If-None-Match has this answer already."},
    404: {"description": "Beyond the last image of a seed.", "model": Problem},
    429: {"description": "Too much is waiting.", "model": Problem, "headers": _RETRY},
    503: {
        "description": "Not ready in time; or this process does not generate the right images.",
        "model": Problem,
        "headers": _RETRY,
    },
}
"""Documented responses of /images."""
