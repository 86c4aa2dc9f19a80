"""Draw images by the hundred million, on all cores of a machine or of a Ray cluster.

python -m examples.cluster.bulk artifacts/mnist --count 100_000_000 --output images/

Repeated, it goes on: shards that are there are checked, and missing or damaged ones drawn.
"""

import argparse
import hashlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from examples.cluster.connection import add_connection_options, connect
from examples.cluster.shards import (
    Manifest,
    ManifestError,
    Order,
    Shard,
    draw,
    file_sha256,
    open_manifest,
    read_manifest,
)
from inference import ArtifactError, ProviderError, Sampler
from inference.command.long_job import Progress, Stop, Stopped, stoppable
from inference.model_files.artifact_files import generator_file
from inference.model_files.reading import read_file
from inference.runtime import telemetry
from inference.writing.files import sweep

# Times that a shard is drawn again whose worker or machine was lost, and shards handed out for each
# core: one to draw, and one to begin with at once.
_RETRIES = 10
_SHARDS_A_CORE = 2
_ABANDONED_SECONDS = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    telemetry.switch_off()
    parser = _parser()
    options = parser.parse_args(arguments)
    file = generator_file(options.artifact)
    try:
        Sampler(file, provider="cpu").close()  # refuses a bad file before Ray starts
        artifact = read_file(file)
        order = _order(options, artifact)
        folder = options.output.resolve()
        manifest = read_manifest(folder) if options.verify else open_manifest(folder, order)
        connect(options)
        with stoppable() as stop:
            job = _Job(manifest, artifact, options.provider, stop)
            return job.verify() if options.verify else job.draw()
    except ValueError as error:
        parser.error(str(error))
    except Stopped as stopped:
        print("stopped: the same command goes on", file=sys.stderr)
        return stopped.exit_code
    except (ArtifactError, ProviderError, ManifestError, ImportError, OSError, _Lost) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


class _Lost(Exception):
    """A shard could not be had; the message says why."""


class _Job:
    """The shards of a manifest as tasks of Ray."""

    def __init__(self, manifest: Manifest, artifact: bytes, provider: str, stop: Stop) -> None:
        import ray

        self._ray, self._manifest, self._stop = ray, manifest, stop
        self._artifact, self._provider = ray.put(artifact), provider
        self._gpus = int(provider.startswith("cuda"))

    def draw(self) -> int:
        """Draw what is missing; returns the exit code."""
        manifest, order, listed = self._manifest, self._manifest.order, dict(self._manifest.sha256)
        sweep(manifest.folder, seconds=_ABANDONED_SECONDS)
        began, found, images = time.monotonic(), Counter[bool](), 0
        try:
            for shard, (sha256, drawn) in self._all(order.shards(), _draw_unless_there):
                found[drawn] += 1
                images += shard.count if drawn else 0
                if listed.get(shard.file, sha256) != sha256:
                    print(
                        f"{shard.file}: drawn again with other bytes; another processor or "
                        f"onnxruntime may round a pixel differently", file=sys.stderr,
                    )  # fmt: skip
                manifest.sha256[shard.file] = sha256
                manifest.write()
        finally:
            manifest.write(at_once=True)
        sweep(manifest.folder)  # nobody writes any more
        print(
            f"{manifest.folder}: images {order.start} to {order.start + order.count - 1} of seed "
            f"{order.seed}; {found[True]} shards drawn, {found[False]} were there; "
            f"{images / (time.monotonic() - began):,.0f} images/s"
        )
        return 0

    def verify(self) -> int:
        """Compare every shard with the manifest; returns the exit code."""
        wrong = 0
        for shard, sha256 in self._all(self._manifest.order.shards(), _hash):
            expected = self._manifest.sha256.get(shard.file)
            if expected is None or sha256 != expected:
                print(f"{shard.file}: {_what_is_wrong(sha256, expected)}")
                wrong += 1
        print(f"{self._manifest.folder}: {wrong or 'none'} of its shards wrong or missing")
        return int(wrong > 0)

    def _all(self, shards: Iterator[Shard], function: Any) -> Iterator[tuple[Shard, Any]]:
        """Each shard as it is done, and what the function returned of it."""
        ray, order = self._ray, self._manifest.order
        # A task of a worker that dies is Ray's to repeat.
        task = ray.remote(max_retries=_RETRIES, num_cpus=1, num_gpus=self._gpus)(function)
        progress, images = Progress(order.count), 0
        waiting: dict[Any, Shard] = {}
        while True:
            cores = int(ray.cluster_resources().get("CPU", 1))  # machines come and go
            for shard in islice(shards, max(0, _SHARDS_A_CORE * cores - len(waiting))):
                expected = self._manifest.sha256.get(shard.file)
                where = self._manifest.folder, order.seed, shard, expected
                waiting[task.remote(self._artifact, self._provider, *where)] = shard
            if not waiting:
                break
            done, _ = ray.wait(list(waiting), timeout=1)
            for each in done:
                shard = waiting.pop(each)
                yield shard, self._result(each, shard)
                images += shard.count
            progress.show(images)
            self._stop.check()
        progress.end()

    def _result(self, reference: Any, shard: Shard) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise _Lost(f"{shard.file}: {error.cause}") from None
        except self._ray.exceptions.RayError as error:
            raise _Lost(f"{shard.file}, tried {_RETRIES + 1} times: {error}") from None


def _draw_unless_there(
    artifact: bytes, provider: str, folder: Path, seed: int, shard: Shard, expected: str | None
) -> tuple[str, bool]:
    """In a worker: a shard's sha256, and whether it had to be drawn."""
    if expected is not None and file_sha256(folder / shard.file) == expected:
        return expected, False
    return draw(artifact, provider, folder, seed, shard), True


def _hash(
    artifact: bytes, provider: str, folder: Path, seed: int, shard: Shard, expected: str | None
) -> str | None:
    """In a worker: a shard's sha256, or what is in its place."""
    try:
        return file_sha256(folder / shard.file)
    except OSError as error:
        return error.strerror


def _what_is_wrong(sha256: str | None, expected: str | None) -> str:
    """sha256: as `_hash` returns it."""
    if sha256 is None:
        return "missing"
    if " " in sha256:
        return sha256
    return "damaged" if expected else "not listed"


def _order(options: argparse.Namespace, artifact: bytes) -> Order:
    sha256 = hashlib.sha256(artifact).hexdigest()
    return Order(sha256, options.seed, options.start, options.count, options.shard_size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.cluster.bulk",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("artifact", type=Path, metavar="ARTIFACT", help="artifact folder or its generator.onnx")
    add("--count", type=int, required=True, metavar="N", help="number of images")
    add("--output", type=Path, required=True, metavar="DIR", help="a folder that all machines see")
    add("--shard-size", type=int, default=65536, metavar="N", help="images in a file (65536)")
    add("--seed", type=int, default=0, metavar="N", help="which stream of images (0)")
    add("--start", type=int, default=0, metavar="N", help="index of the first image (0)")
    add("--provider", default="cpu", choices=("cpu", "cuda"), help="cuda: a GPU a shard (cpu)")
    add("--verify", action="store_true", help="compare all files with the manifest; draw nothing")
    add_connection_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
