"""The contract and the seal of an artifact's files.

The contract is JSON that describes the generator. It is stored under the key `ganpack` in ONNX
`metadata_props` and in TorchScript's extra files. The seal of an ONNX file is the sha256 of the
whole file. It detects damage, but it is no signature. `export` writes both with the same code, so
this module needs the standard library only.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import prod
from typing import Any

from .errors import GanpackError, presentable
from .strict_json import strict_json

FORMAT_VERSION = 1
"""Increased only if an old reader would misread a file; readers ignore unknown keys."""

CONTRACT_KEY = "ganpack"
SEAL_KEY = "ganpack.sha256"
UNSEALED = "0" * 64

# The entry of the seal in protobuf: field 1 (the key), then field 2 (a value of 64 bytes).
SEAL_MARKER = b"\x0a\x0e" + SEAL_KEY.encode() + b"\x12\x40"


PIXEL_TOLERANCE = 1
"""Grey levels that a pixel may differ from PyTorch's."""
PIXEL_SHARE = 0.001
"""Share of the pixels that may differ."""

_PRECISIONS = ("fp32", "fp16")

# Far larger than any network of this kind, and far smaller than a computer's memory.
MOST_PIXELS = 2**20
LONGEST_Z = 2**14
MOST_CLASSES = 2**13
LARGEST_FILE = 2**29
"""In bytes."""
_MOST_GOLDEN_IMAGES = 8
_LONGEST_TEXT = 2**12
LONGEST_CONTRACT = 2**25
"""Characters of a contract. Nearly all are those of the golden images."""


class ArtifactError(GanpackError):
    """A file is no artifact that this version can use; the message says what is wrong."""

    def __init__(self, message: str) -> None:
        """message: may hold text of the file, of any length and content."""
        super().__init__(presentable(message))


@dataclass(frozen=True)
class Metadata:
    """The contract: what a generator is, its origin, and how well it matches PyTorch."""

    role: str
    """"generator": z in, images out; "sampler": seed, start and count in, pixels and z out."""
    image_shape: tuple[int, int, int]
    """(channels, height, width); 1 channel is grey, 3 are RGB."""
    latent_dim: int
    """Length of z."""
    noise: str
    """Name of the noise stream, see `inference.noise`."""
    dataset: str
    """Data set that the generator was trained on."""
    recipe: str
    """Training recipe."""
    step: int
    """Number of updates of both networks before this generator was saved."""
    weights_sha256: str
    """The sha256 of the snapshot's tensors; the same in every file made from it."""
    classes: tuple[str, ...] = ()
    """Names of the classes of a conditional generator; empty for an unconditional one."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Scores of the generator by name, and how they were measured."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the programs that made the file."""
    parity: Mapping[str, Any] = field(default_factory=dict)
    """Differences of the files from PyTorch, with their tolerances; see `parity.json`."""
    precision: str = "fp32"
    """Precision of the stored weights, "fp32" or "fp16". Inputs and outputs are float32."""
    golden: tuple[Mapping[str, Any], ...] = ()
    """Images that PyTorch generated with these weights, and their seeds; see `golden`."""
    format_version: int = FORMAT_VERSION
    """Version of this contract."""

    def __post_init__(self) -> None:
        """Raise ArtifactError if a value is impossible."""
        if self.format_version != FORMAT_VERSION:
            raise ArtifactError(
                f"artifact format {self.format_version}, this version reads {FORMAT_VERSION}: "
                f"update ganpack, or export the checkpoint again with `python -m export.run`"
            )
        if len(self.image_shape) != 3 or self.image_shape[0] not in {1, 3}:
            raise ArtifactError(f"image_shape must be (1 or 3, H, W), got {self.image_shape}")
        if min(*self.image_shape, self.latent_dim) < 1:
            raise ArtifactError(
                f"sizes must be positive, got {self.image_shape} and {self.latent_dim}"
            )
        if prod(self.image_shape) > MOST_PIXELS or self.latent_dim > LONGEST_Z:
            raise ArtifactError(
                f"images of {self.image_shape} from z of {self.latent_dim} are absurd: at most "
                f"{MOST_PIXELS} and {LONGEST_Z} values are read"
            )
        if len(self.classes) > MOST_CLASSES or len(self.golden) > _MOST_GOLDEN_IMAGES:
            raise ArtifactError(
                f"{len(self.classes):,} classes and {len(self.golden):,} golden images are absurd: "
                f"at most {MOST_CLASSES:,} and {_MOST_GOLDEN_IMAGES} are read"
            )
        if self.precision not in _PRECISIONS:
            raise ArtifactError(
                f"precision must be one of {', '.join(_PRECISIONS)}, got {self.precision!r}"
            )

    def to_json(self) -> str:
        """The contract as strict JSON with sorted keys, equal for equal metadata."""
        return json.dumps(asdict(self), allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Metadata":
        """Read a contract; unknown keys are ignored.

        Raises:
            ArtifactError: if it is not a contract of this format version.
        """
        if len(text) > LONGEST_CONTRACT:
            raise ArtifactError(f"the contract is absurd: it has {len(text):,} characters")
        try:
            values = strict_json(text if isinstance(text, str) else text.decode())
        except ValueError as error:
            raise ArtifactError(f"the contract is not strict JSON: {error}") from None
        if not isinstance(values, dict):
            raise ArtifactError("the contract is not a JSON object")
        # Check the version first, because another version may have other keys.
        known = {"format_version": _typed(values, "format_version", int)}
        if known["format_version"] == FORMAT_VERSION:
            for name, kind in _KINDS.items():
                if name in values or name not in _OPTIONAL:
                    known[name] = _typed(values, name, kind)
            known["golden"] = tuple(_all({"golden": [], **known}, "golden", dict))
            known["image_shape"] = tuple(_all(known, "image_shape", int))
            known["classes"] = tuple(_all(known, "classes", str))
        else:  # __post_init__ refuses this version
            known |= {f.name: None for f in fields(cls) if f.name != "format_version"}
        return cls(**known)


_KINDS: dict[str, type] = {
    "role": str,
    "image_shape": list,
    "latent_dim": int,
    "noise": str,
    "dataset": str,
    "recipe": str,
    "step": int,
    "weights_sha256": str,
    "classes": list,
    "scores": dict,
    "versions": dict,
    "parity": dict,
    "precision": str,
    "golden": list,
}
_OPTIONAL = {"precision", "golden"}  # the first artifacts of this format lack these keys


def seal(file: bytes) -> bytes:
    """Replace the zeros in the seal of an ONNX file by the sha256 of the file."""
    head, _, tail = _split_at_seal(file)
    digest = hashlib.sha256(file).hexdigest()
    return b"".join([head, digest.encode(), tail])


def verify_seal(file: bytes) -> None:
    """Raise ArtifactError unless an ONNX file has not changed since it was sealed."""
    head, digest, tail = _split_at_seal(file)
    actual = hashlib.sha256(head)
    actual.update(UNSEALED.encode())
    actual.update(tail)
    if actual.hexdigest().encode() != digest:
        raise ArtifactError(
            "damaged, or changed since it was sealed: its content does not match its seal. Copy "
            "the file again from its source, or export it again. If it was changed on purpose "
            "(simplified, quantised, another opset, …) and you trust it, allow_foreign=True "
            "accepts it"
        )


def is_sealed(file: bytes) -> bool:
    """Whether an ONNX file is as ganpack sealed it."""
    try:
        verify_seal(file)
    except ArtifactError:
        return False
    return True


def _split_at_seal(file: bytes) -> tuple[memoryview, bytes, memoryview]:
    """Split a file into the bytes before the digits of the seal, the digits, and the rest."""
    first = file.find(SEAL_MARKER)
    if first < 0:
        raise ArtifactError("not written by ganpack, or cut short: it carries no seal")
    first += len(SEAL_MARKER)
    if file.find(SEAL_MARKER, first) >= 0:
        raise ArtifactError(f"damaged: it carries {file.count(SEAL_MARKER)} seals")
    view = memoryview(file)  # slices of a memoryview are no copies
    return view[:first], file[first : first + 64], view[first + 64 :]


def _typed(values: Mapping[str, Any], name: str, kind: type) -> Any:
    value = values.get(name)
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise ArtifactError(f"the contract's {name} is absurd: it has {len(value):,} characters")
    # In Python a bool is an int; in a contract it is not.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ArtifactError(f"the contract's {name} must be a JSON {kind.__name__}, got {value!r}")
    return value


def _all(values: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    return [_typed({name: item}, name, kind) for item in values[name]]
