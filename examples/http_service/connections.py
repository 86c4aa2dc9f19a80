"""Bounds on the connections of a server: their number, the size of a request, and all times.

uvicorn itself bounds none of them with httptools: a header may be endless, a request may take for
ever, a client may ask and never read, and idle connections keep others out.
"""

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from math import inf
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_PIECE = 4096
"""Bytes that are parsed at once; between two pieces the bounds are checked."""
_PIPELINED = 16
"""Requests of one connection that may wait for an answer."""


@dataclass(frozen=True)
class Bounds:
    """Bounds on the connections of one server."""

    connections: int = 1000
    """Open connections. For one more, the connection that has waited longest for a request is
    closed. If all wait for an answer, the new one gets a 503."""
    request_bytes: int = 16 * 1024
    """Size of a request, header and body together."""
    seconds: float = 10.0
    """Time to send a whole request, from its first byte or from the opening of the connection."""
    bytes_per_second: int = 64 * 1024
    """A client that reads its answer more slowly is cut off, after `seconds` more."""
    seconds_to_read_why: float = 1.0
    """Time in which a client that is turned away can read the reason."""


class Connections:
    """All connections of one server. Pass it to uvicorn as `http`: it makes their protocols."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._open: set[_Connection] = set()
        self._waiting: dict[_Connection, None] = {}
        """Connections without a complete request; the one that has waited longest is first."""
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self, **settings: Any) -> asyncio.Protocol:
        """Make the protocol of a new connection."""
        return _Connection(self, **settings)

    def enter(self, connection: "_Connection") -> None:
        """Count a new connection, and make room for it."""
        self._open.add(connection)
        self.wait(connection)
        most = self.bounds.connections
        while len(self._open) > most:
            longest = next(iter(self._waiting))
            if longest is connection:
                connection.turn_away(503, f"all {most:,} connections are in use")
                break
            self.leave(longest)
            longest.drop()
        if self._timer is None:
            self._look_again()

    def leave(self, connection: "_Connection") -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def wait(self, connection: "_Connection") -> None:
        """Note that a connection waits for a request from now on."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def work(self, connection: "_Connection") -> None:
        """Note that a connection has a complete request."""
        self._waiting.pop(connection, None)

    def _look_again(self) -> None:
        seconds = min(1.0, self.bounds.seconds / 4)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end_late_ones)

    def _end_late_ones(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for connection in list(self._open):
            connection.end_if_late(now)
        if self._open:
            self._look_again()


class _Connection(HttpToolsProtocol):
    """One connection of uvicorn, with bounds."""

    def __init__(self, all_of_them: Connections, **settings: Any) -> None:
        super().__init__(**settings)
        self._all, self._bounds = all_of_them, all_of_them.bounds
        self._received = 0  # bytes of the request that is not complete yet
        self._header_is_complete = False
        self._turned_away = False
        self._request_by = self._read_by = inf  # times at which it is late

    # What the transport calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._request_by = self._soon()
        self._all.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for first in range(0, len(data), _PIECE):
            if self._turned_away or self.transport.is_closing():
                return
            piece = data[first : first + _PIECE]
            self._received += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():  # uvicorn has answered with a 400
                return
            if self._received > self._bounds.request_bytes:
                status = 413 if self._header_is_complete else 431
                most = self._bounds.request_bytes
                self.turn_away(status, f"a request has at most {most:,} bytes, its header included")
            if len(self.pipeline) > _PIPELINED:
                self.drop()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_by = self._soon()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_by = inf

    # What the parser calls.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_is_complete = False
        self._request_by = self._soon()

    def on_headers_complete(self) -> None:
        self._header_is_complete = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._received, self._request_by = 0, inf
        self._all.work(self)

    # What the answer calls.

    def on_response_complete(self) -> None:
        has_another = bool(self.pipeline)
        super().on_response_complete()
        if not has_another:
            self._request_by = self._soon()
            self._all.wait(self)

    # Ways to end it.

    def end_if_late(self, now: float) -> None:
        """End the connection if its request or the reading of its answer takes too long."""
        if now < min(self._request_by, self._read_by):
            return
        asks = self._received > 0 and not self._header_is_complete
        if asks and not self._turned_away and now < self._read_by:
            self.turn_away(408, f"a request must be complete within {self._bounds.seconds:g} s")
        else:
            self.drop()

    def turn_away(self, status: int, detail: str) -> None:
        """Say why there is no answer, read no more, and close soon.

        An answer that is on its way goes out instead. A socket that is closed with unread bytes
        resets the connection, and the client might never see the reason. So it stays open a little.
        """
        self._turned_away = True
        self._request_by = self.loop.time() + self._bounds.seconds_to_read_why
        self._unset_keepalive_if_required()
        self.flow.pause_reading()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
            self._request_by = inf
            return
        if not self._header_is_complete:  # else it has its answer
            self.transport.write(_refusal(status, detail))
        self.transport.write_eof()

    def drop(self) -> None:
        """Close at once."""
        self.transport.abort()

    def _soon(self) -> float:
        """The time by which the client has read what is sent, and sends a request."""
        unread = self.transport.get_write_buffer_size()
        seconds = self._bounds.seconds + unread / self._bounds.bytes_per_second
        return self.loop.time() + seconds


def _refusal(status: int, detail: str) -> bytes:
    body = json.dumps({"detail": detail}).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"cache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
