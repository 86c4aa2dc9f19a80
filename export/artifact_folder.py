"""`export`: build an artifact folder aside, check it against PyTorch, then move it into place."""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from export.generator_files import export_graph, onnx_file, write_torchscript
from export.half_precision import half_precision
from export.model_card import write_model_card
from export.parity import (
    Check,
    ParityError,
    check_files,
    golden_images,
    require_finite,
    require_parity,
    summary,
)
from export.sampler_file import sampler_graph
from export.scoring import trained_on
from inference import ArtifactError, Sampler
from inference.artifact import PIXEL_SHARE, PIXEL_TOLERANCE, Metadata
from inference.errors import GanpackError
from inference.model_files.artifact_files import (
    ARTIFACT_FILES,
    GENERATOR_FILE,
    PARITY_FILE,
    SAMPLER_FILE,
    TORCHSCRIPT_FILE,
)
from inference.noise import NOISE
from inference.runtime.session import version as runtime_version
from inference.writing.files import atomic_write
from training.config import DataConfig
from training.engine.precision import known_settings
from training.gan.networks import Generator
from training.run_folder.checkpoint import (
    CheckpointFacts,
    checkpoint_facts,
    load_generator,
    weights_sha256,
)
from training.run_folder.folder import RunFolder
from training.run_folder.history import read_best
from training.run_folder.origin import package_versions
from training.run_folder.sealed_file import load

if TYPE_CHECKING:
    import onnx


class ExportError(GanpackError):
    """There is nothing to export, or no folder for it; the message says what to do."""


@known_settings()
def export(
    checkpoint: Path,
    output: Path,
    precision: str = "fp32",
    dataset: str | None = None,
    data_dir: Path = Path("data"),
) -> list[Check]:
    """Write the artifact of a generator snapshot into `output`; return the checks it passed.

    If anything fails, an older artifact in `output` is left unchanged.

    precision: precision of the weights in the ONNX files. "fp16" is scored against the images of
    `dataset` (by default the generator's data set), and must score as well as "fp32".

    Raises:
        CheckpointError: if the snapshot cannot be read.
        ConfigError: if "fp16" cannot be scored, because the path of the images is unknown.
        ParityError: if there is NaN or infinity in the weights or images, a file does not match
            PyTorch, or "fp16" is worse than "fp32".
        ExportError: if no artifact can be put in `output`.
    """
    place = _place_of(output)
    content = load(checkpoint)
    generator = load_generator(content, str(checkpoint))
    require_finite(generator, str(checkpoint))
    metadata = _metadata(checkpoint_facts(content, str(checkpoint)), generator)
    with _replaced_whole(place) as folder:
        model = _Model.of(generator)
        if precision == "fp16":
            data = DataConfig(dataset) if dataset else trained_on(checkpoint, metadata.dataset)
            model, metadata = _halved(model, metadata, data, data_dir)
        metadata = replace(metadata, golden=golden_images(model.stored))
        # Twice: the files contain the figures of their own check, and the final files are checked
        # too.
        metadata = replace(metadata, parity=summary(model.write_and_check(folder, metadata)))
        checks = model.write_and_check(folder, metadata)
        _require_drawn(folder)
        write_model_card(folder, metadata)
        _write_report(folder, metadata, checks)
    return checks


@dataclass(frozen=True)
class _Model:
    """The generator and the graph from which the files of an artifact are made."""

    generator: Generator
    stored: Generator
    """The generator with the weights of the ONNX files, which may be rounded to float16."""
    graph: "onnx.ModelProto"
    """The graph of `stored`."""

    @classmethod
    def of(cls, generator: Generator) -> Self:
        """A model whose files have the generator's weights without rounding."""
        return cls(generator, generator, export_graph(generator))

    def write_and_check(self, folder: Path, metadata: Metadata) -> list[Check]:
        """Write the three files and check them; raise ParityError if they do not match."""
        sampler = sampler_graph(self.graph, self.generator.latent_dim, len(self.generator.classes))
        as_sampler = replace(metadata, role="sampler")
        as_torchscript = replace(metadata, precision="fp32", golden=golden_images(self.generator))
        (folder / GENERATOR_FILE).write_bytes(onnx_file(self.graph, metadata))
        (folder / SAMPLER_FILE).write_bytes(onnx_file(sampler, as_sampler))
        write_torchscript(self.generator, as_torchscript, folder / TORCHSCRIPT_FILE)
        checks = check_files(self.generator, folder, self.stored)
        require_parity(checks)
        return checks


def _require_drawn(folder: Path) -> None:
    """Raise an error unless a sampler opens the file and generates its golden images."""
    try:
        with Sampler(folder / GENERATOR_FILE, provider="cpu") as sampler:
            result = sampler.check()
    except ArtifactError as error:
        raise ExportError(f"no sampler would open the exported file: {error}") from None
    if not result.passed:
        raise ParityError(f"{GENERATOR_FILE} does not generate its golden images: {result}")


def _halved(
    model: _Model, metadata: Metadata, data: DataConfig, data_dir: Path
) -> tuple[_Model, Metadata]:
    """The model with weights in float16, and its contract, with the scores of both precisions."""
    half = half_precision(model.graph, model.generator, metadata, data, data_dir)
    scores = {**metadata.scores, **half.scores}
    metadata = replace(metadata, precision="fp16", scores=scores)
    return replace(model, graph=half.graph, stored=half.generator), metadata


def _metadata(facts: CheckpointFacts, generator: Generator) -> Metadata:
    """The contract of an artifact, from the facts in a generator snapshot."""
    return Metadata(
        role="generator",
        image_shape=generator.image_shape,
        latent_dim=generator.latent_dim,
        classes=generator.classes,
        noise=NOISE,
        dataset=facts.dataset,
        recipe=facts.recipe,
        step=facts.step,
        weights_sha256=weights_sha256(generator),
        scores=facts.scores,
        versions=_versions(),
    )


def best_checkpoint(run_dir: Path) -> Path:
    """The generator snapshot that best.json names.

    Raises:
        ExportError: if the run has none.
    """
    folder = RunFolder(run_dir)
    try:
        return folder.path / read_best(folder).checkpoint
    except OSError as error:
        raise ExportError(
            f"{run_dir} has no best snapshot yet ({folder.best.name}: {error.strerror}): train "
            f"it first, or name a file with --checkpoint"
        ) from None
    except ValueError as error:
        raise ExportError(
            f"{folder.best} is damaged ({error}): python -m training.run --resume {folder.quoted} "
            f"writes it again, or name a file with --checkpoint"
        ) from None


def _place_of(output: Path) -> Path:
    """Where an output folder really is, behind symbolic links.

    Raises:
        ExportError: if no artifact can be put there. The check comes first, before the work.
    """
    place = Path(os.path.realpath(output))
    if problem := _problem_with(place):
        raise ExportError(f"{output} {problem}: name an empty or a new folder with --output")
    return place


def _problem_with(folder: Path) -> str:
    """The reason why a folder cannot be made or replaced; empty if it can."""
    if folder.is_symlink():
        return "is a symbolic link that leads to itself"
    if folder.exists() and (problem := _problem_with_content(folder)):
        return problem
    above = next(path for path in folder.parents if path.exists())
    if not above.is_dir():
        return f"cannot be made, as {above} is no folder"
    for path in (above, folder):
        if path.exists() and not os.access(path, os.W_OK | os.X_OK):
            return f"cannot be written, because {path} is read-only"
    return ""


def _problem_with_content(folder: Path) -> str:
    """The reason why `folder` must not be replaced; empty if it may be."""
    if not folder.is_dir():
        return "is a file"
    if _is_mounted(folder):
        return "is a mount point, which cannot be replaced"
    if Path.cwd().is_relative_to(folder):
        return "is the folder that the command runs in, which would be replaced"
    others = sorted({path.name for path in folder.iterdir()} - ARTIFACT_FILES)
    return f"holds other files ({', '.join(others[:5])})" if others else ""


def _is_mounted(folder: Path) -> bool:
    """Whether a folder is a mount point, even of the same file system."""
    name = re.sub(r"[ \t\n\\]", lambda found: f"\\{ord(found[0]):03o}", str(folder))
    with suppress(OSError):  # only Linux has this list
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
        return any(line.split(" ")[4] == name for line in mounts.splitlines())
    return folder.is_mount()


@contextmanager
def _replaced_whole(folder: Path) -> Iterator[Path]:
    """A new folder to fill, which replaces `folder` unless an error is raised."""
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    new.mkdir(parents=True)
    try:
        yield new
        _sync(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except BaseException:  # KeyboardInterrupt too
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Flush a folder's files to the disk, before the folder is renamed."""
    for path in folder.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())


def _versions() -> dict[str, str]:
    packages = package_versions("torch", "onnx")
    return {"python": platform.python_version(), "onnxruntime": runtime_version(), **packages}


def _write_report(folder: Path, metadata: Metadata, checks: list[Check]) -> None:
    report: dict[str, Any] = {
        "reference": "PyTorch in float64 on the CPU",
        "pixel_tolerance": PIXEL_TOLERANCE,
        "pixel_share": PIXEL_SHARE,
        "summary": metadata.parity,
        "checks": [check.to_dict() for check in checks],
        "versions": dict(metadata.versions),
        "weights_sha256": metadata.weights_sha256,
        "sha256": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.iterdir())
        },
    }
    with atomic_write(folder / PARITY_FILE) as file:
        file.write((json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
