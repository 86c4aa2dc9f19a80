"""A session of onnxruntime for a host program: threads, signals and forks may come between."""

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
    """An onnxruntime session that many threads may use, and a process forked from its own."""

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
        on_stream: OnStream | None = None,
    ) -> None:
        """Raise ProviderError or ArtifactError where it cannot be had, see `open_session`.

        on_stream: makes the model for CUDA, where the session puts its work on a stream of ours.
        """
        self._model, self._settings, self._convolutions = model, settings, convolutions
        self._session, self.provider, self.stream = open_somewhere(
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
            raise cannot_run(error) from None
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
            raise cannot_run(error) from None
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
            raise cannot_run(error) from None
        return partial(_run_bound, session, binding, without_waiting())

    def _leave_to_parent(self) -> bool:
        """In a forked process, keep what its parent opened for good; whether this is one.

        The threads of a session stay behind in the parent, and its end would wait for them.
        """
        forked = self._process != os.getpid()
        if forked:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
        return forked


class _Bindings(threading.local):
    """A thread's binding, used again and again, with the session that it belongs to."""

    def __init__(self) -> None:
        self.free: list[tuple[Any, Any]] = []


def _run_bound(session: Any, binding: Any, options: Any) -> None:
    try:
        session.run_with_iobinding(binding, options)
    except Exception as error:  # as in _open
        raise cannot_run(error) from None
