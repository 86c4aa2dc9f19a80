"""The one place that touches onnxruntime: sessions on a provider that is what it says.

onnxruntime answers a request for CUDA that it cannot fulfil with a session on the CPU and no
error. Here a CUDA session is created strictly and its provider is read back.
"""

import ctypes
import logging
import platform
import re
from pathlib import Path
from typing import Any

from .artifact import ArtifactError

_log = logging.getLogger(__package__)


class ProviderError(RuntimeError):
    """The provider that was asked for cannot be had; the message says why."""


def open_session(model: bytes | Path, provider: str = "auto", threads: int = 1) -> tuple[Any, str]:
    """An onnxruntime session for an ONNX file or its bytes, and where it really runs.

    provider: "auto", "cpu", "cuda" (device 0) or "cuda:N".  threads: 0 means all cores.
    Returns the session and "cpu" or "cuda:N".

    Raises:
        ValueError: for another provider or negative threads.
        ProviderError: where "cuda" was asked for and cannot be had.
        ArtifactError: where onnxruntime cannot read the model.
    """
    if threads < 0:
        raise ValueError(f"threads must be 0 (all cores) or more, got {threads}")
    match = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", provider)
    if not match:
        raise ValueError(f'provider must be "auto", "cpu", "cuda" or "cuda:N", got {provider!r}')
    device = int(match[1] or 0)
    if provider != "cpu":
        try:
            session = _open_cuda(model, device, threads)
        except ProviderError as error:
            if provider != "auto":
                raise
            _log.info("drawing on the CPU: %s", error)
        else:
            _log.info("drawing on CUDA device %d", device)
            return session, f"cuda:{device}"
    return _open(model, _options(threads), ["CPUExecutionProvider"]), "cpu"


def _open_cuda(model: bytes | Path, device: int, threads: int) -> Any:
    """A session with every node on CUDA, or ProviderError."""
    onnxruntime = _runtime()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ProviderError(
            f"onnxruntime {onnxruntime.__version__} here has no CUDA provider: "
            f"pip uninstall onnxruntime && pip install 'ganpack[gpu]'"
        )
    driver = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
    try:
        ctypes.CDLL(driver)
    except OSError:
        raise ProviderError(f"no NVIDIA driver ({driver} cannot be loaded)") from None
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls(cudnn=False)  # a fully connected network needs no cuDNN
    options = _options(threads)
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # TF32 would put images 1e-3 away from float32.
    cuda = ("CUDAExecutionProvider", {"device_id": str(device), "use_tf32": "0"})
    try:
        session = _open(model, options, [cuda], enable_fallback=0)
    except ArtifactError as error:
        _open(model, _options(threads), ["CPUExecutionProvider"])  # raises if the file is at fault
        raise ProviderError(f"onnxruntime cannot run on CUDA device {device}: {error}") from None
    providers = set(session.get_providers()[:1])
    if hasattr(session, "get_provider_graph_assignment_info"):
        providers |= {part.ep_name for part in session.get_provider_graph_assignment_info()}
    if providers != {"CUDAExecutionProvider"}:
        raise ProviderError(f"onnxruntime would run on {sorted(providers)} instead of CUDA alone")
    return session


def _options(threads: int) -> Any:
    options = _runtime().SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin for work burn ten times the work itself in an idle host.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # a guest does not write to its host's stderr; errors are raised
    return options


def _open(model: bytes | Path, options: Any, providers: list[Any], **keywords: Any) -> Any:
    onnxruntime = _runtime()
    try:
        source = str(model) if isinstance(model, Path) else model
        return onnxruntime.InferenceSession(source, options, providers=providers, **keywords)
    except Exception as error:  # onnxruntime's own exceptions share no narrower class
        raise ArtifactError(f"onnxruntime {onnxruntime.__version__}: {error}") from None


def run_session(session: Any, outputs: list[str], feeds: dict[str, Any]) -> list[Any]:
    """What a session gives for some inputs.

    Raises:
        ArtifactError: where onnxruntime cannot run the graph.
    """
    try:
        results: list[Any] = session.run(outputs, feeds)
    except Exception as error:  # as in _open
        raise ArtifactError(f"onnxruntime {version()} cannot run it: {error}") from None
    return results


def version() -> str:
    """The installed onnxruntime's version."""
    return str(_runtime().__version__)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ProviderError(
            "onnxruntime is not installed: pip install 'ganpack[cpu]', or 'ganpack[gpu]' for CUDA"
        ) from None
    return onnxruntime
