"""A session of onnxruntime that works with threads, signal handlers and forks."""

import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from .session import (
    OnStream,
    SessionSettings,
    cannot_run,
    open_session,
    open_somewhere,
    without_waiting,
)

if TYPE_CHECKING:
    from .streams import Stream

OnDevice = tuple[int, type[Any], tuple[int, ...]]
"""Address, element type and shape of an array on the device."""


class Session:
    """An onnxruntime session. It is thread-safe, and also works in a forked process."""

    provider: str
    """Where it runs: "cpu" or "cuda:N"."""
    stream: "Stream | None"
    """The stream of its work, if ganpack made it."""

    def __init__(
        self,
        model: bytes | Path,
        settings: SessionSettings,
        *,
        convolutions: bool = False,
        on_stream: OnStream | None = None,
    ) -> None:
        """Raise ProviderError or ArtifactError if it cannot be opened; see `open_session`.

        on_stream: makes the model for CUDA; the session then uses a stream of ganpack.
        """
        self._model, self._settings, self._convolutions = model, settings, convolutions
        self._session, self.provider, self.stream = open_somewhere(
            model, settings, convolutions, on_stream
        )
        self._process = os.getpid()
        self._bindings = _Bindings()

    def __del__(self) -> None:
        """Release the session, unless it belongs to another process."""
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
        """Run the graph on some inputs; return its outputs.

        Raises:
            ArtifactError: if onnxruntime cannot run the graph.
        """
        session = self.raw
        try:
            results: list[Any] = session.run(outputs, feeds)
        except Exception as error:  # as in _open
            raise cannot_run(error) from None
        return results

    def run_into(self, feeds: dict[str, NDArray[Any]], output: str, out: NDArray[Any]) -> None:
        """Write one output into a C-contiguous array of exactly its shape.

        On CUDA, onnxruntime copies directly into the array after the last node.

        Raises:
            ArtifactError: see `run`; and if the output has another shape.
        """
        session, bindings = self.raw, self._bindings
        # Removed while in use, so that a signal handler that runs meanwhile makes another.
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
            raise cannot_run(error) from None
        bindings.free = [binding]

    def bind(
        self, inputs: Mapping[str, OnDevice], outputs: Mapping[str, OnDevice]
    ) -> Callable[[], None]:
        """A function that puts a run on the session's stream, and does not wait.

        It raises ArtifactError; see `run`.
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
            raise cannot_run(error) from None
        return partial(_run_bound, session, binding, without_waiting())

    def _leave_to_parent(self) -> bool:
        """Whether this process was forked; then the parent's session is kept forever.

        The threads of a session exist only in the parent, and freeing the session would wait for
        them.
        """
        forked = self._process != os.getpid()
        if forked:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        return forked


class _Bindings(threading.local):
    """The reused binding of a thread, with the session that it belongs to."""

    def __init__(self) -> None:
        self.free: list[tuple[Any, Any]] = []


def _run_bound(session: Any, binding: Any, options: Any) -> None:
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:  # as in _open
        raise cannot_run(error) from None
