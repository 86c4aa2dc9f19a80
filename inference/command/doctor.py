"""The report on provider, libraries and devices: `python -m inference.run --doctor`."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import ArtifactError
from ..runtime import cuda, driver
from ..runtime.driver import ProviderError
from ..runtime.session import runtime


def examine() -> dict[str, Any]:
    """Versions, libraries and devices, as JSON values. The home folder is written as ~."""
    from .. import __version__

    report: dict[str, Any] = {
        "ganpack": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "numpy": np.__version__,
        "pillow": _pillow(),
    }
    try:
        module = runtime()
    except ProviderError as error:
        return report | {"onnxruntime": {"problem": str(error)}, "cuda": {"problem": str(error)}}
    report["onnxruntime"] = {
        "version": module.__version__,
        "packages": cuda.installed(module),
        "folder": _without_home(str(Path(module.__file__).parent)),
        "built_for_cuda": getattr(module, "cuda_version", "") or None,
        "providers": module.get_available_providers(),
    }
    if cuda.has_provider(module):
        report["cuda"] = _cuda(module)
    else:
        report["cuda"] = {"problem": "this onnxruntime is the build for the CPU"}
    return report


def examine_sampler(sampler: Any) -> tuple[dict[str, Any], bool]:
    """Where a `Sampler` runs and its golden images, as JSON values; and whether they failed."""
    metadata = sampler.metadata
    found: dict[str, Any] = {
        "provider": sampler.provider,
        "dataset": metadata.dataset,
        "image_shape": list(metadata.image_shape),
        "weights_sha256": metadata.weights_sha256,
    }
    try:
        result = sampler.check()
    except ArtifactError as error:
        return found | {"golden_images": str(error)}, False
    verdict = "passed" if result.passed else "FAILED"
    return found | {
        "golden_images": f"{verdict}: largest difference {result.largest_difference} levels, "
        f"{result.differing_pixels} pixels"
    }, not result.passed


def describe(report: Mapping[str, Any], indent: str = "") -> str:
    """The report as text, a line for each value."""
    lines = []
    for name, value in report.items():
        label = f"{indent}{name.replace('_', ' ')}:"
        if isinstance(value, Mapping):
            lines += [label, describe(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value):
                lines += [f"{label[:-1]} {number}:", describe(item, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{label} {'-' if shown in {None, ''} else shown}")
    return "\n".join(lines)


def _cuda(module: Any) -> dict[str, Any]:
    """Everything that CUDA needs, even if one part is missing."""
    found: dict[str, Any] = {"problem": None, "driver_runs_cuda": None}
    try:
        cuda.require_cuda(module, 0)
    except ProviderError as error:
        found["problem"] = str(error)
    found["libraries"] = {
        library.name: _without_home(cuda.load(library) or "missing")
        for library in cuda.libraries(
            module, convolutions=True
        )  # with cuDNN, which only convolutions need
    }
    found["devices"] = []
    try:
        nvidia = driver.load_driver()
        found["driver_runs_cuda"] = ".".join(map(str, driver.driver_version(nvidia)))
        found["devices"] = driver.devices(nvidia)
    except ProviderError as error:
        found["problem"] = found["problem"] or str(error)
    return found


def _pillow() -> str | None:
    try:
        import PIL
    except ModuleNotFoundError:
        return None
    return PIL.__version__


def _without_home(path: str) -> str:
    home = str(Path.home())
    return path.replace(home, "~") if len(home) > 1 else path
