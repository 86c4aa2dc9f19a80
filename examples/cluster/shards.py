"""What is to be drawn, shard by shard, and manifest.json, which says what is there. No Ray.

Installed from the wheel, `inference` is called `ganpack`.
"""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from inference import Sampler
from inference.runtime import telemetry
from inference.writing.files import atomic_write
from inference.writing.outputs import Job, writer_for

_MANIFEST = "manifest.json"
_WRITE_SECONDS = 0.2


class ManifestError(Exception):
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

    def shards(self) -> Iterator[Shard]:
        """All of them; the last may be smaller."""
        end = self.start + self.count
        for first in range(self.start, end, self.shard_size):
            yield Shard(first, min(self.shard_size, end - first))


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
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        shards = content.pop("shards")
        order = Order(**content)
        expected = {shard.file: shard for shard in order.shards()}
        for entry in shards:
            if expected[entry["file"]] != Shard(entry["start"], entry["count"]):
                raise ValueError(f"{entry['file']} is no shard of its order")
        return Manifest(folder, order, {entry["file"]: str(entry["sha256"]) for entry in shards})
    except FileNotFoundError:
        raise ManifestError(f"{folder} has no {_MANIFEST}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ManifestError(f"{path} is damaged ({error}): move the folder away") from None


def draw(artifact: bytes, provider: str, folder: Path, seed: int, shard: Shard) -> str:
    """Write a shard whole, batch by batch; returns its sha256.

    Raises:
        ArtifactError, ProviderError: as `Sampler`.
        OSError: where it cannot be written; `folder` must be there, on this machine as well.
    """
    telemetry.switch_off()  # this may be a process of Ray's, on another machine
    sampler = _sampler(artifact, provider)
    channels, height, width = sampler.metadata.image_shape
    shape = (height, width) if channels == 1 else (height, width, channels)
    path = folder / shard.file
    with writer_for(path, Job(shard.count, shape), force=True) as writer:
        for batch in sampler.stream(shard.count, seed=seed, start=shard.start):
            writer.write(batch)
    sha256 = file_sha256(path)
    assert sha256 is not None
    return sha256


def file_sha256(path: Path) -> str | None:
    """None where there is no file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


@cache
def _sampler(artifact: bytes, provider: str) -> Sampler:
    """One for all shards that a process draws."""
    return Sampler(artifact, provider=provider)
