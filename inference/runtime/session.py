"""Sessions of onnxruntime on a verified provider. No other module touches onnxruntime.

If onnxruntime cannot use CUDA, it silently gives a session on the CPU. Here a CUDA session is
created without that fallback, and its provider is read back.
"""

import ctypes
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..artifact import ArtifactError
from .cuda import require_cuda
from .driver import ProviderError

if TYPE_CHECKING:
    from .device import Stream

OnDevice = tuple[int, type[Any], tuple[int, ...]]
"""Address, element type and shape of an array on the device."""

# "inference" in a checkout, "ganpack" in the wheel.
_PACKAGE = __name__.removesuffix(".runtime.session")


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
        if self.threads < 0:
            raise ValueError(f"threads must be 0 (all cores) or more, got {self.threads}")
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


class Session:
    """An onnxruntime session. It is thread-safe, and also works in a forked process."""

    provider: str
    """Where it really runs: "cpu" or "cuda:N"."""
    stream: "Stream | None"
    """What its work is put on, where that is ours."""

    def __init__(
        self,
        model: bytes | Path,
        settings: SessionSettings,
        *,
        convolutions: bool = False,
        on_stream: bool = False,
    ) -> None:
        """Raise ProviderError or ArtifactError where it cannot be had, see `open_session`.

        on_stream: whether it shall, on CUDA, put its work on a stream of ours.
        """
        self._model, self._settings, self._convolutions = model, settings, convolutions
        self._session, self.provider, self.stream = _open_somewhere(
            model, settings, convolutions, on_stream
        )
        self._process = os.getpid()
        self._bindings = _Bindings()

    def __del__(self) -> None:
        """Let go of the session, unless it is another process's."""
        if hasattr(self, "_process"):
            self._leave_to_parent()

    @property
    def raw(self) -> Any:
        """The onnxruntime session of this process."""
        if self._leave_to_parent():
            settings = replace(self._settings, provider=self.provider)
            self._session, _ = open_session(self._model, settings, convolutions=self._convolutions)
            self._process = os.getpid()
        return self._session

    def run(self, outputs: list[str], feeds: dict[str, Any]) -> list[Any]:
        """What it gives for some inputs.

        Raises:
            ArtifactError: where onnxruntime cannot run the graph.
        """
        session = self.raw
        try:
            results: list[Any] = session.run(outputs, feeds)
        except Exception as error:  # as in _open
            raise _cannot_run(error) from None
        return results

    def run_into(self, feeds: dict[str, NDArray[Any]], output: str, out: NDArray[Any]) -> None:
        """Write one output for some inputs into an array of its very shape, C-contiguous.

        On CUDA, too, onnxruntime copies straight into that array, after the last node.

        Raises:
            ArtifactError: as `run`, and where the output has another shape.
        """
        session, bindings = self.raw, self._bindings
        # Taken while it is in use: a signal handler that draws meanwhile makes another.
        binding = bindings.free.pop() if bindings.free else None
        try:
            if binding is None or binding[0] is not session:
                binding = session, session.io_binding()
            for name, value in feeds.items():
                binding[1].bind_cpu_input(name, value)
            binding[1].bind_output(
                output, "cpu", 0, out.dtype.type, out.shape, out.__array_interface__["data"][0]
            )
            session.run_with_iobinding(binding[1])
        except Exception as error:  # as in _open
            raise _cannot_run(error) from None
        bindings.free = [binding]

    def bind(
        self, inputs: Mapping[str, OnDevice], outputs: Mapping[str, OnDevice]
    ) -> Callable[[], None]:
        """What puts a run on the session's stream, each time it is called, and waits for nothing.

        It raises ArtifactError as `run` does.
        """
        session, binding = self.raw, None
        device = int(self.provider.partition(":")[2])
        try:
            binding = session.io_binding()
            for name, (address, kind, shape) in inputs.items():
                binding.bind_input(name, "cuda", device, kind, shape, address)
            for name, (address, kind, shape) in outputs.items():
                binding.bind_output(name, "cuda", device, kind, shape, address)
        except Exception as error:  # as in _open
            raise _cannot_run(error) from None
        options = runtime().RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return partial(_run_bound, session, binding, options)

    def _leave_to_parent(self) -> bool:
        """In a forked process, keep what its parent opened for good; whether this is one.

        The threads of a session stay behind in the parent, and its end would wait for them.
        """
        forked = self._process != os.getpid()
        if forked:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        return forked


class _Bindings(threading.local):
    """The reused binding of a thread, with the session that it belongs to."""

    def __init__(self) -> None:
        self.free: list[tuple[Any, Any]] = []


def open_session(
    model: bytes | Path, settings: SessionSettings | str = "auto", *, convolutions: bool = False
) -> tuple[Any, str]:
    """An onnxruntime session for an ONNX file or its bytes, and where it really runs.

    settings: or a provider alone.  convolutions: whether the graph has operations for which
    onnxruntime needs cuDNN on CUDA.  Returns the session and "cpu" or "cuda:N".

    Raises:
        ProviderError: where "cuda" was asked for and cannot be had.
        ArtifactError: where onnxruntime cannot read the model.
    """
    if isinstance(settings, str):
        settings = SessionSettings(settings)
    session, provider, _ = _open_somewhere(model, settings, convolutions, on_stream=False)
    return session, provider


def _open_somewhere(
    model: bytes | Path, settings: SessionSettings, convolutions: bool, on_stream: bool
) -> tuple[Any, str, "Stream | None"]:
    """What `open_session` returns, and the stream of ours that it runs on."""
    if settings.provider != "cpu":
        try:
            session, stream = _open_cuda(model, settings, convolutions, on_stream)
        except ProviderError as error:
            if settings.provider != "auto":
                raise
            say("drawing on the CPU, as CUDA cannot be had: %s", error)
        else:
            if settings.provider == "auto":
                say(
                    "drawing on CUDA device %d: driver and libraries are there, and each node of "
                    "the graph is on it", settings.device,
                )  # fmt: skip
            return session, f"cuda:{settings.device}", stream
    return _open(model, _native(settings), ["CPUExecutionProvider"]), "cpu", None


def _open_cuda(
    model: bytes | Path, settings: SessionSettings, convolutions: bool, on_stream: bool
) -> tuple[Any, "Stream | None"]:
    """A session with every node on CUDA, and its stream, or ProviderError."""
    require_cuda(runtime(), settings.device, convolutions=convolutions)
    native = _native(SessionSettings("cuda"))
    native.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    native.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    cuda = {"use_tf32": str(int(settings.tf32))}
    if settings.device:  # onnxruntime 1.26 and later print a warning wherever it is named
        cuda["device_id"] = str(settings.device)
    stream = None
    if on_stream:
        from .device import Context, Stream  # nothing for a host that draws on the CPU

        stream = Stream(Context(settings.device))
        cuda["user_compute_stream"] = str(stream.handle)
    try:
        session = _open(model, native, [("CUDAExecutionProvider", cuda)])
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
    native.log_severity_level = (
        4  # a library must not write to its host's stderr; errors are raised
    )
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
    """A line for the host's log."""
    import logging  # imported late: it takes milliseconds

    logging.getLogger(_PACKAGE).info(text, *values)


def _run_bound(session: Any, binding: Any, options: Any) -> None:
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:  # as in _open
        raise _cannot_run(error) from None


def _cannot_run(error: Exception) -> ArtifactError:
    return ArtifactError(f"onnxruntime {version()} cannot run it: {error}")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
            "onnxruntime is not installed: pip install 'ganpack[cpu]', or 'ganpack[gpu]' for CUDA"
        ) from None
    return onnxruntime
