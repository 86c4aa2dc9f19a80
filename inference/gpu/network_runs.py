"""Runs of the network on a stream: a CUDA graph for each batch size.

A graph needs one call to the driver instead of dozens.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ..artifact import ArtifactError
from ..runtime.session import say
from ..runtime.shared_session import Session
from ..runtime.streams import Graph, GraphError, Stream
from .workspace import Workspace

_WARM_UP = 2  # runs after which onnxruntime allocates no more memory


class NetworkRuns:
    """Makes the functions that put runs of one session on its stream."""

    def __init__(self, session: Session, stream: Stream, lock: threading.RLock) -> None:
        """lock: held by whoever puts work on the stream."""
        self._session, self._stream, self._lock = session, stream, lock
        self.uses_graphs = True

    def run(self, workspace: Workspace, size: int, *, nested: bool) -> Callable[[], None]:
        """A function that runs the network on `size` images; made on first use.

        nested: whether this is a call in a signal handler, which makes no graph.
        """
        run = workspace.runs.get(size)
        if run is None and self.uses_graphs and not nested:
            _in_a_thread(partial(self._make_graph, workspace, size))
            run = workspace.runs.get(size)
        if run is None:
            run = workspace.runs[size] = self.bind(workspace, size)
        return run

    def bind(self, workspace: Workspace, size: int) -> Callable[[], None]:
        """A function that runs the network on `size` images without a graph."""
        return self._session.bind(workspace.inputs(size), workspace.outputs(size))

    def _make_graph(self, workspace: Workspace, size: int) -> None:
        run = self.bind(workspace, size)
        with self._stream.context, self._lock:
            try:
                for _ in range(_WARM_UP):
                    run()
                self._stream.wait()
                workspace.runs[size] = Graph(self._stream, run).launch
            except (GraphError, ArtifactError) as error:
                self.uses_graphs = False
                say("generating images without CUDA graphs, which is slower: %s", error)


def _in_a_thread(action: Callable[[], None]) -> None:
    """Run in another thread, so that a signal handler waits for the recording.

    Signal handlers run in the main thread. If that thread were recording the stream, a handler
    would put its own work into the record.
    """
    thread = threading.Thread(target=action, name="ganpack-graph")
    with suppress(RuntimeError):  # the interpreter is exiting, and starts no more threads
        thread.start()
        thread.join()
