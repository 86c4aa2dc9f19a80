"""Open sessions of onnxruntime that really run on the provider that was asked for.

If onnxruntime cannot use CUDA, it opens a session on the CPU without an error. So this module
forbids the fallback, and then reads the provider of the session.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact import ArtifactError
from . import installation
from .cuda import has_provider, require_cuda
from .driver import ProviderError

if TYPE_CHECKING:
    from .device import Context
    from .streams import Stream

OnStream = Callable[["Context"], bytes]
"""Makes the model for a device, to run on a stream of ganpack."""

# "inference" in a checkout, "ganpack" in the wheel.
_PACKAGE = __name__.removesuffix(".runtime.session")


_MOST_THREADS = 1024


@dataclass(frozen=True)
class SessionSettings:
    """Where and how a session runs."""

    provider: str = "auto"
    """"auto", "cpu", "cuda" (device 0) or "cuda:N"."""
    threads: int = 1
    """Processor threads; 0 means all cores."""
    spinning: bool = False
    """Let idle threads spin: faster, but they use the processor all the time."""
    tf32: bool = False
    """Let CUDA round factors to 10 bits: faster; images may differ by one grey level."""

    def __post_init__(self) -> None:
        """Raise ValueError for a provider or a number of threads that does not exist."""
        if not 0 <= self.threads <= _MOST_THREADS:
            raise ValueError(
                f"threads must be 0 (all cores) to {_MOST_THREADS:,}, got {self.threads}"
            )
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.provider):
            raise ValueError(
                f'provider must be "auto", "cpu", "cuda" or "cuda:N", got {self.provider!r}'
            )

    @property
    def device(self) -> int:
        """Number of the CUDA device that is asked for."""
        return int(self.provider.partition(":")[2] or 0)

    @property
    def cores(self) -> int:
        """The number of threads, with 0 replaced by the number of cores."""
        # With an explicit number, onnxruntime does not bind threads to cores, which containers may
        # forbid.
        return self.threads or _cores()


def open_session(
    model: bytes | Path, settings: SessionSettings | str = "auto", *, convolutions: bool = False
) -> tuple[Any, str]:
    """An onnxruntime session for an ONNX file or its bytes, and where it really runs.

    settings: or a provider alone.  convolutions: whether the graph has operations for which
    onnxruntime needs cuDNN on CUDA.  Returns the session and "cpu" or "cuda:N".

    Raises:
        ProviderError: if "cuda" was asked for and cannot be used.
        ArtifactError: if onnxruntime cannot read the model.
    """
    if isinstance(settings, str):
        settings = SessionSettings(settings)
    session, provider, _ = open_somewhere(model, settings, convolutions, on_stream=None)
    return session, provider


def open_somewhere(
    model: bytes | Path, settings: SessionSettings, convolutions: bool, on_stream: OnStream | None
) -> tuple[Any, str, "Stream | None"]:
    """What `open_session` returns, and the stream of the session if `on_stream` is given."""
    if settings.provider == "auto" and not has_provider(runtime()):
        say("generating images on the CPU: onnxruntime %s here is the build for it", version())
    elif settings.provider != "cpu":
        try:
            session, stream = _open_cuda(model, settings, convolutions, on_stream)
        except ProviderError as error:
            if settings.provider != "auto":
                raise
            say("generating images on the CPU, because CUDA cannot be used: %s", error)
        else:
            if settings.provider == "auto":
                say(
                    "generating images on CUDA device %d: it has all libraries, and each node of "
                    "the graph runs there", settings.device,
                )  # fmt: skip
            return session, f"cuda:{settings.device}", stream
    return _open(model, _native(settings), ["CPUExecutionProvider"]), "cpu", None


def _open_cuda(
    model: bytes | Path, settings: SessionSettings, convolutions: bool, on_stream: OnStream | None
) -> tuple[Any, "Stream | None"]:
    """A session with every node on CUDA, and its stream, or ProviderError."""
    require_cuda(runtime(), settings.device, convolutions=convolutions)
    native = _native(SessionSettings("cuda"))
    native.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    native.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    cuda = {"use_tf32": str(int(settings.tf32))}
    if settings.device:  # if it is named, onnxruntime 1.26 and later print a warning
        cuda["device_id"] = str(settings.device)
    stream = None
    network = model
    if on_stream is not None:
        from .device import Context  # a host that uses the CPU needs neither
        from .streams import Stream

        stream = Stream(Context(settings.device))
        network = on_stream(stream.context)
        cuda["user_compute_stream"] = str(stream.handle)
    try:
        session = _open(network, native, [("CUDAExecutionProvider", cuda)])
    except ArtifactError as error:
        _open(model, _native(settings), ["CPUExecutionProvider"])  # raises if the file is at fault
        raise ProviderError(
            f"onnxruntime cannot run on CUDA device {settings.device}: {error}"
        ) from None
    providers = set(session.get_providers()[:1])
    if hasattr(session, "get_provider_graph_assignment_info"):
        providers |= {part.ep_name for part in session.get_provider_graph_assignment_info()}
    if providers != {"CUDAExecutionProvider"}:
        raise ProviderError(f"onnxruntime would run on {sorted(providers)} instead of CUDA alone")
    return session, stream


def _native(settings: SessionSettings) -> Any:
    native = runtime().SessionOptions()
    native.intra_op_num_threads = settings.cores
    # In an idle host, spinning threads use ten times the processor time of the work itself.
    native.add_session_config_entry("session.intra_op.allow_spinning", str(int(settings.spinning)))
    native.log_severity_level = 4  # no output on the host's stderr; errors are raised
    return native


def _open(model: bytes | Path, native: Any, providers: list[Any]) -> Any:
    onnxruntime = runtime()
    try:
        source = str(model) if isinstance(model, Path) else model
        # Without the fallback, which would print and use another provider.
        return onnxruntime.InferenceSession(source, native, providers=providers, enable_fallback=0)
    except Exception as error:  # onnxruntime's exceptions have no narrower common class
        raise ArtifactError(f"onnxruntime {onnxruntime.__version__}: {error}") from None


def say(text: str, *values: object) -> None:
    """Write a line to the host's log."""
    import logging  # imported late: it takes milliseconds

    logging.getLogger(_PACKAGE).info(text, *values)


def cannot_run(error: Exception) -> ArtifactError:
    """The error for a failed run."""
    return ArtifactError(f"onnxruntime {version()} cannot run it: {error}")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def without_waiting() -> Any:
    """Options for a run that puts its work on a stream and does not wait."""
    options = runtime().RunOptions()
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")
    return options


def version() -> str:
    """The installed onnxruntime's version."""
    return str(runtime().__version__)


def runtime() -> Any:
    """The module `onnxruntime`.

    Raises:
        ProviderError: if it is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ProviderError(
            f"onnxruntime is not installed: {installation.command('cpu')}, or gpu instead of cpu "
            f"for CUDA"
        ) from None
    return onnxruntime
