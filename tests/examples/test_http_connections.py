"""What clients of the HTTP service may not do: send or wait without end, or keep others out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

pytest.importorskip("uvicorn")

from uvicorn import Config
from uvicorn.server import ServerState

from examples.http_service.connections import Bounds, Connections

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE = b"x" * 2**23  # more than the buffers of both sockets take
SECONDS = 0.3

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Client]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer /large with `LARGE`, and /slow once the server is released."""
    if scope["path"] == "/slow":
        await scope["state"]["release"].wait()
    body = LARGE if scope["path"] == "/large" else b"ok"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def server(
    **bounds: int | float,
) -> AsyncIterator[tuple[Connect, ServerState, asyncio.Event]]:
    """A server with bounds: what connects to it, uvicorn's record, and what releases /slow."""
    config, state = Config(app, access_log=False, ws="none", log_level="critical"), ServerState()
    config.load()
    bounds = {"seconds": SECONDS, "seconds_to_read_why": 0.05, **bounds}
    connections = Connections(Bounds(**bounds))  # type: ignore[arg-type]
    release = asyncio.Event()
    settings = {"config": config, "server_state": state, "app_state": {"release": release}}
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: connections(**settings), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        writers.append(writer)
        return reader, writer

    try:
        yield connect, state, release
    finally:
        release.set()
        ours = [writer.transport for writer in writers]
        for transport in [*ours, *(each.transport for each in state.connections)]:
            transport.abort()
        listening.close()
        await asyncio.sleep(0.01)


async def answer(client: Client, request: bytes = GET) -> bytes:
    """The head of the answer to a request, or nothing where the connection is closed."""
    reader, writer = client
    writer.write(request)
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    length = next(x for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:"))
    await asyncio.wait_for(reader.readexactly(int(length.partition(b":")[2])), 5)
    return head


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, some seconds at most."""
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.01)


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed or reset."""
    said = b""
    with suppress(ConnectionError):
        while piece := await reader.read(2**16):
            said += piece
    return said


async def sent_until_closed(client: Client, piece: bytes, pause: float = 0) -> tuple[int, bytes]:
    """How much of an endless request a client could send, and what it was answered."""
    reader, writer = client
    sent, said = 0, asyncio.create_task(everything(reader))
    with suppress(ConnectionError):
        while not said.done() and sent < 2**24:
            writer.write(piece)
            with suppress(TimeoutError):
                await asyncio.wait_for(writer.drain(), 0.1)
            sent += len(piece)
            await asyncio.sleep(pause)
    return sent, await said


ENDLESS = {
    "header": (b"GET / HTTP/1.1\r\nA: ", b"a" * 1000, 0, b"431"),
    "headers": (b"GET / HTTP/1.1\r\n", b"A: b\r\n" * 100, 0, b"431"),
    "address": (b"GET /", b"a" * 1000, 0, b"431"),
    "slow-header": (b"GET / HTTP/1.1\r\nA: ", b"a", 0.02, b"408"),
    "body": (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"a" * 1000, 0, b"200"),
    "slow-body": (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"a", 0.02, b"200"),
    "chunks": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 0, b"200"),
    "nothing": (b"", b"", 0.02, b""),
    "pipeline": (b"GET /slow HTTP/1.1\r\n\r\n", b"GET /slow HTTP/1.1\r\n\r\n" * 50, 0, b""),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_cut_off(kind: str) -> None:
    first, piece, pause, status = ENDLESS[kind]

    async def main() -> None:
        async with server() as (connect, state, _):
            client = await connect()
            client[1].write(first)
            sent, said = await asyncio.wait_for(sent_until_closed(client, piece, pause), 5)
            assert said.startswith(b"HTTP/1.1 " + status if status else b"")
            assert sent < 2**23  # what the sockets' buffers take, of 16 MiB
            if status not in {b"", b"200"}:
                assert b"cache-control: no-store" in said
            await until(lambda: not state.connections)
            assert (await answer(await connect())).startswith(b"HTTP/1.1 200")

    asyncio.run(main())


def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    async def main() -> None:
        async with server(bytes_per_second=2**26) as (connect, state, _):
            reader, writer = await connect()
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"GET /large HTTP/1.1\r\n\r\n" * 3)
            await asyncio.sleep(0.1)
            assert len(state.connections) == 1
            await until(lambda: not state.connections)

    asyncio.run(main())


def test_a_slow_reader_gets_its_answer_as_long_as_it_reads() -> None:
    async def main() -> None:
        async with server(bytes_per_second=2**22) as (connect, *_):
            reader, writer = await connect()
            writer.write(b"GET /large HTTP/1.1\r\nConnection: close\r\n\r\n")
            got = 0
            while piece := await reader.read(2**20):
                got += len(piece)
                await asyncio.sleep(0.08)  # 0.64 s for all of it, twice the seconds for a request
            assert got > len(LARGE)

    asyncio.run(main())


def test_idle_connections_give_way_and_busy_ones_do_not() -> None:
    async def main() -> None:
        async with server(connections=4, seconds=10) as (connect, state, release):
            busy = await connect()
            slow = asyncio.create_task(answer(busy, GET.replace(b"/ ", b"/slow ")))
            await until(lambda: len(state.tasks) == 1)
            idle = [await connect() for _ in range(30)]
            await until(lambda: len(state.connections) <= 4)
            assert (await answer(await connect())).startswith(b"HTTP/1.1 200")
            assert await answer(idle[0]) == b""
            release.set()
            assert (await slow).startswith(b"HTTP/1.1 200")

    asyncio.run(main())


def test_where_all_are_busy_one_more_is_told_to_come_back() -> None:
    async def main() -> None:
        async with server(connections=2, seconds=10) as (connect, state, release):
            ask = GET.replace(b"/ ", b"/slow ")
            tasks = [asyncio.create_task(answer(await connect(), ask)) for _ in range(2)]
            await until(lambda: len(state.tasks) == 2)
            refused = [await answer(await connect()) for _ in range(3)]
            for head in refused:
                assert head.startswith(b"HTTP/1.1 503")
                assert b"cache-control: no-store" in head
            release.set()
            assert all(head.startswith(b"HTTP/1.1 200") for head in await asyncio.gather(*tasks))
            assert (await answer(await connect())).startswith(b"HTTP/1.1 200")

    asyncio.run(main())


def test_a_connection_is_used_again_and_may_pause_within_a_request() -> None:
    async def main() -> None:
        async with server(seconds=1) as (connect, *_):
            client = await connect()
            for _ in range(3):
                assert (await answer(client)).startswith(b"HTTP/1.1 200")
                client[1].write(GET[:20])
                await asyncio.sleep(0.1)
                assert (await answer(client, GET[20:] + GET)).startswith(b"HTTP/1.1 200")
                assert (await answer(client, b"")).startswith(b"HTTP/1.1 200")
            for _ in range(20):  # more bytes than one request may have
                assert await answer(client, GET[:-2] + b"A: " + b"a" * 8000 + b"\r\n\r\n")

    asyncio.run(main())
