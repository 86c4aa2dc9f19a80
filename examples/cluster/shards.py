"""What is to be drawn, shard by shard, and manifest.json, which says what is there. No Ray.

Installed from the wheel, `inference` is called `ganpack`.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from inference import Sampler
from inference.errors import GanpackError, presentable
from inference.noise import check_range
from inference.runtime import telemetry
from inference.writing.files import atomic_write
from inference.writing.outputs import writer_for
from inference.writing.plain_file import open_plain, read_plain
from inference.writing.writer import Job

_MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 2**28
"""Bytes. A shard takes about 150."""
_MOST_SHARDS = 1_000_000
_WRITE_SECONDS = 0.2


class ManifestError(GanpackError):
    """A folder cannot take these images; the message says why."""


@dataclass(frozen=True)
class Shard:
    """A range of images in a file of its own."""

    start: int
    count: int

    @property
    def file(self) -> str:
        """Named by the index of its first image."""
        return f"{self.start:010d}.npy"


@dataclass(frozen=True)
class Order:
    """Which images, in which shards: what must not change while a folder fills."""

    artifact_sha256: str
    """sha256 of the artifact's generator.onnx."""
    seed: int
    start: int
    count: int
    shard_size: int

    def __post_init__(self) -> None:
        """Raise ValueError for an order that cannot be drawn, or that has too many shards."""
        if not isinstance(self.artifact_sha256, str):
            raise ValueError("artifact_sha256 must be a text")
        for name in ("seed", "start", "count", "shard_size"):
            value = getattr(self, name)
            if type(value) is not int:  # JSON has bools and fractions too
                raise ValueError(f"{name} must be a whole number, got {value!r}")
        check_range(self.count, seed=self.seed, start=self.start)
        if self.count < 1 or self.shard_size < 1:
            raise ValueError("count and shard_size must be at least 1")
        if -(-self.count // self.shard_size) > _MOST_SHARDS:
            raise ValueError(
                f"{self.count} images in shards of {self.shard_size} are more than "
                f"{_MOST_SHARDS:,} files: take larger shards"
            )

    def shards(self) -> Iterator[Shard]:
        """All of them; the last may be smaller."""
        for first in range(self.start, self.start + self.count, self.shard_size):
            yield self._beginning_at(first)

    def has(self, shard: Shard) -> bool:
        """Whether a shard is one of these."""
        place = shard.start - self.start
        inside = 0 <= place < self.count and place % self.shard_size == 0
        return inside and self._beginning_at(shard.start) == shard

    def _beginning_at(self, first: int) -> Shard:
        return Shard(first, min(self.shard_size, self.start + self.count - first))


@dataclass
class Manifest:
    """The order of a folder, and the sha256 of each shard that is in it."""

    folder: Path
    order: Order
    sha256: dict[str, str] = field(default_factory=dict)
    """By the shard's file name."""
    _next: float = 0.0

    def write(self, *, at_once: bool = False) -> None:
        """Write manifest.json, whole; unless at once, for a tenth of the time at most.

        A shard that is not in it yet when the process is killed is drawn again.
        """
        began = time.monotonic()
        if not at_once and began < self._next:
            return
        shards = [
            {"file": shard.file, **asdict(shard), "sha256": self.sha256[shard.file]}
            for shard in self.order.shards()
            if shard.file in self.sha256
        ]
        content = {**asdict(self.order), "shards": shards}
        with atomic_write(self.folder / _MANIFEST) as file:
            file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
        ended = time.monotonic()
        self._next = ended + max(_WRITE_SECONDS, 10 * (ended - began))


def open_manifest(folder: Path, order: Order) -> Manifest:
    """That of a folder, which is made, or which an earlier call has begun with the same order.

    Raises:
        ManifestError: if the folder holds anything else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / _MANIFEST).exists():
        manifest = read_manifest(folder)
        old, new = asdict(manifest.order), asdict(order)
        differing = [f"{key} {old[key]} -> {new[key]}" for key in new if old[key] != new[key]]
        if differing:
            raise ManifestError(
                f"{folder} holds other images: {', '.join(differing)}; repeat the command that it "
                f"was begun with, or name another folder"
            )
        return manifest
    if any(path.suffix != ".tmp" for path in folder.iterdir()):
        raise ManifestError(f"{folder} holds files, and no {_MANIFEST}: name another folder")
    manifest = Manifest(folder, order)
    manifest.write(at_once=True)
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """What a folder says that it holds.

    Raises:
        ManifestError: where it says nothing, or nothing that can be read.
    """
    path = folder / _MANIFEST
    try:
        content: dict[str, Any] = json.loads(read_plain(path, _LARGEST_MANIFEST))
        shards = content.pop("shards")
        order = Order(**content)
        manifest = Manifest(folder, order)
        for entry in shards:
            shard = Shard(entry["start"], entry["count"])
            if entry["file"] != shard.file or not order.has(shard):
                raise ValueError(f"{entry['file']} is no shard of its order")
            manifest.sha256[shard.file] = str(entry["sha256"])
        return manifest
    except FileNotFoundError:
        raise ManifestError(f"{folder} has no {_MANIFEST}") from None
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}: move it away") from None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = presentable(f"{type(error).__name__}: {error}")
        raise ManifestError(f"{path} is damaged ({why}): move the folder away") from None


def draw(artifact: bytes, provider: str, folder: Path, seed: int, shard: Shard) -> str:
    """Write a shard whole, batch by batch; returns its sha256.

    Raises:
        ArtifactError, ProviderError: as `Sampler`.
        OSError: where it cannot be written; `folder` must be there, on this machine as well.
    """
    path = folder / shard.file
    if os.path.lexists(path):
        open_plain(path).close()  # a folder, a pipe or a device is not ours to replace
    telemetry.switch_off()  # this may be a process of Ray's, on another machine
    sampler = _sampler(artifact, provider)
    channels, height, width = sampler.metadata.image_shape
    shape = (height, width) if channels == 1 else (height, width, channels)
    with writer_for(path, Job(shard.count, shape), force=True) as writer:
        for batch in sampler.stream(shard.count, seed=seed, start=shard.start):
            writer.write(batch)
    sha256 = file_sha256(path)
    assert sha256 is not None
    return sha256


def file_sha256(path: Path) -> str | None:
    """The sha256 of a file; None if there is none.

    Raises:
        OSError: if something else is in its place: a folder, a pipe or a device.
    """
    try:
        with open_plain(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


@cache
def _sampler(artifact: bytes, provider: str) -> Sampler:
    """One for all shards that a process draws."""
    return Sampler(artifact, provider=provider)
