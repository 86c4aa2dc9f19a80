"""The HTTP service in one process: its answers, its errors, and its promises to caches."""

import asyncio
import hashlib
import io
import re
import signal
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inference import ArtifactError, Sampler
from inference.writing import room
from inference.writing.pictures import grid
from tests.support.files import ROOT
from tests.support.golden_file import Golden, golden_images, require_golden_z, require_same_pixels

pytest.importorskip("fastapi")
httpx = pytest.importorskip("httpx")

from examples.http_service import service  # noqa: E402
from examples.http_service.__main__ import main  # noqa: E402
from examples.http_service.contract import Limits  # noqa: E402
from examples.http_service.pages import front_page  # noqa: E402
from examples.http_service.tiles import TileDrawer  # noqa: E402

Client = Any


@pytest.fixture(scope="module")
def file(golden_artifact: Path) -> bytes:
    return (golden_artifact / "generator.onnx").read_bytes()


@pytest.fixture(scope="module")
def sampler(golden_artifact: Path) -> Sampler:
    return Sampler(golden_artifact, provider="cpu")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """While this event is clear, no image is generated. It is set at first."""
    go, decode = Event(), Sampler.decode
    go.set()

    def wait_and_decode(self: Sampler, *inputs: Any) -> NDArray[np.uint8]:
        go.wait(20)
        return decode(self, *inputs)

    monkeypatch.setattr(Sampler, "decode", wait_and_decode)
    yield go
    go.set()


def run(
    file: bytes, work: Callable[[Client], Coroutine[Any, Any, Any]], **limits: int | float
) -> Any:
    """The result of `work` with a client of a new application."""

    async def main() -> Any:
        app = service.create_app(file, provider="cpu", limits=Limits(**limits))  # type: ignore[arg-type]
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            return await work(client)

    return asyncio.run(main())


def get(file: bytes, path: str, headers: dict[str, str] | None = None) -> Any:
    return run(file, lambda client: client.get(path, headers=headers))


def array_of(response: Any) -> NDArray[np.uint8]:
    drawn: NDArray[np.uint8] = np.load(io.BytesIO(response.content))
    return drawn


@pytest.mark.parametrize("golden", golden_images(), ids=lambda golden: f"seed-{golden.seed}")
def test_it_draws_the_golden_images(file: bytes, sampler: Sampler, golden: Golden) -> None:
    query = f"/images?seed={golden.seed}&start={golden.start}&count={golden.count}"
    response = get(file, f"{query}&format=npy")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-npy"
    drawn = array_of(response)
    require_same_pixels(drawn, golden.pixels)
    z = sampler.latents(golden.count, seed=golden.seed, start=golden.start)
    require_golden_z(z, golden)
    expected = sampler.sample(golden.count, seed=golden.seed, start=golden.start)
    np.testing.assert_array_equal(drawn, expected)

    response = get(file, f"{query}&format=png")
    assert response.headers["content-type"] == "image/png"
    picture = np.asarray(Image.open(io.BytesIO(response.content)))
    np.testing.assert_array_equal(picture, grid(drawn))


def test_it_draws_the_class_that_is_asked_for(conditional_artifact: Path) -> None:
    file = (conditional_artifact / "generator.onnx").read_bytes()
    sampler = Sampler(file, provider="cpu")

    async def work(client: Client) -> list[Any]:
        paths = ["", "&label=3", "&label=7", "&label=10", "&label=cat"]
        of_paths = [client.get(f"/images?seed=3&start=5&count=9&format=npy{p}") for p in paths]
        return list(await asyncio.gather(*of_paths))  # in shared tiles

    answers = run(file, work)
    for response, label in zip(answers, (None, 3, 7), strict=False):
        expected = sampler.sample(9, seed=3, start=5, label=label)
        np.testing.assert_array_equal(array_of(response), expected)
    tags = {response.headers["etag"] for response in answers[:3]}
    assert len(tags) == 3
    mistaken: list[int | str] = [10, "cat"]
    for response, wrong in zip(answers[3:], mistaken, strict=True):
        assert response.status_code == 422
        with pytest.raises(ValueError, match="label must be") as refusal:
            sampler.sample(1, label=wrong)
        assert response.json()["detail"][0]["msg"] == str(refusal.value)
    same = "/images?seed=3&start=5&count=9&format=npy&label=3"
    assert get(file, same, {"If-None-Match": answers[1].headers["etag"]}).status_code == 304
    assert get(file, same, {"If-None-Match": answers[0].headers["etag"]}).status_code == 200
    document = get(file, "/openapi.json").json()
    parameters = document["paths"]["/images"]["get"]["parameters"]
    (asked,) = (each for each in parameters if each["name"] == "label")
    assert asked["schema"]["anyOf"][0]["enum"] == list("0123456789")


def test_without_classes_there_is_no_label(file: bytes, sampler: Sampler) -> None:
    response = get(file, "/images?count=1&label=3")
    assert response.status_code == 422
    with pytest.raises(ValueError, match="no classes") as refusal:
        sampler.sample(1, label=3)
    assert response.json()["detail"][0]["msg"] == str(refusal.value)
    parameters = get(file, "/openapi.json").json()["paths"]["/images"]["get"]["parameters"]
    assert "label" not in {each["name"] for each in parameters}


@pytest.mark.parametrize("kind", ["golden_artifact", "colour_artifact", "conv_artifact"])
def test_one_image_comes_as_it_is(kind: str, request: pytest.FixtureRequest) -> None:
    artifact: Path = request.getfixturevalue(kind)
    images = Sampler(artifact, provider="cpu").sample(3, seed=3, start=5)

    async def one_three_and_an_array(client: Client) -> list[Any]:
        queries = ["count=1", "count=3", "count=3&format=npy"]
        return [await client.get(f"/images?seed=3&start=5&{query}") for query in queries]

    one, three, array = run((artifact / "generator.onnx").read_bytes(), one_three_and_an_array)
    picture = np.asarray(Image.open(io.BytesIO(one.content)))
    np.testing.assert_array_equal(picture, images[0])
    picture = np.asarray(Image.open(io.BytesIO(three.content)))
    np.testing.assert_array_equal(picture, grid(images))
    np.testing.assert_array_equal(array_of(array), images)


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("images?count=1025", 422, "less than or equal to 1024"),
        ("images?count=0", 422, "greater than or equal to 1"),
        ("images?seed=-1", 422, "greater than or equal to 0"),
        (f"images?seed={2**63}", 422, "less than or equal to"),
        (f"images?start={2**63 - 1}&count=2", 404, "the last image of a seed is 9223372036854775"),
        ("images?seed=seven", 422, "valid integer"),
        ("images?format=gif", 422, "'png' or 'npy'"),
        ("images?sed=7", 422, "Extra inputs are not permitted"),
        ("image", 404, "nothing is at /image: /images gives images, and /docs says how"),
    ],
)
def test_bad_requests_are_told_why(file: bytes, path: str, status: int, detail: str) -> None:
    response = get(file, f"/{path}")
    assert response.status_code == status
    assert detail in response.text
    assert response.headers["cache-control"] == "no-store"


def test_other_methods_are_told_which_there_are(file: bytes) -> None:
    response = run(file, lambda client: client.post("/images"))
    assert response.status_code == 405
    assert response.json() == {"detail": "/images answers GET and HEAD, not POST"}
    assert response.headers["allow"] == "GET, HEAD"
    assert response.headers["cache-control"] == "no-store"


def test_head_gives_the_headers_of_get_and_draws_nothing(file: bytes, slow: Event) -> None:
    paths = ["/", "/docs", "/health", "/openapi.json", "/images?seed=7", "/images?start=-1"]

    async def get_and_head(client: Client) -> list[tuple[Any, Any]]:
        answers = [await client.get(path) for path in paths]
        slow.clear()
        heads = [await asyncio.wait_for(client.head(path), 5) for path in paths]
        return list(zip(answers, heads, strict=True))

    for answer, head in run(file, get_and_head):
        assert head.status_code == answer.status_code
        wanted = dict(answer.headers)
        if "images" in str(answer.url) and answer.status_code == 200:
            assert head.content == b""
            del wanted["content-length"]  # only known after the images are generated
        assert dict(head.headers) == wanted


def test_health_tells_provider_and_check_result(file: bytes) -> None:
    response = get(file, "/health")
    assert response.status_code == 200
    health = response.json()
    assert (health["status"], health["provider"]) == ("passed", "cpu")
    assert health["check"]["images"] == 4
    assert health["check"]["largest_difference"] <= 1


def test_health_is_503_where_the_check_fails(file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Sampler.decode
    monkeypatch.setattr(Sampler, "decode", lambda self, z: 255 - decode(self, z))
    response = get(file, "/health")
    assert response.status_code == 503
    assert response.json()["status"] == "failed"
    response = get(file, "/images?seed=7")  # caches would keep it for a year
    assert (response.status_code, response.headers["cache-control"]) == (503, "no-store")


@pytest.mark.parametrize("golden", [True, False])
def test_what_opens_and_cannot_draw_is_not_healthy(
    file: bytes, golden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ArtifactError("onnxruntime cannot run it")

    monkeypatch.setattr(Sampler, "sample", refuse)
    if not golden:  # like the first artifacts

        def opened(*arguments: Any, **settings: Any) -> Sampler:
            sampler = Sampler(*arguments, **settings)
            sampler.metadata = replace(sampler.metadata, golden=())
            return sampler

        monkeypatch.setattr(service, "Sampler", opened)
    response = get(file, "/health")
    assert response.status_code == 503
    assert response.json()["status"] == "failed"
    assert "onnxruntime cannot run it" in response.json()["problem"]


def test_caches_may_keep_an_answer_and_ask_with_its_etag(file: bytes, tiny_artifact: Path) -> None:
    async def tags(client: Client) -> list[str]:
        queries = ["seed=7", "seed=8", "seed=7&start=1", "seed=7&count=3", "seed=7&format=npy"]
        return [(await client.get(f"/images?{query}")).headers["etag"] for query in queries]

    first = get(file, "/images?seed=7")
    assert first.headers["cache-control"] == "public, max-age=31536000, immutable"
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    other = (tiny_artifact / "generator.onnx").read_bytes()
    assert len({tag, *run(file, tags), *run(other, tags)}) == 10  # the first of `file` is `tag`
    for known in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
        again = get(file, "/images?seed=7", {"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert get(file, "/images?seed=7", {"If-None-Match": 'W/"x"'}).status_code == 200


def test_a_known_answer_is_not_drawn_again(file: bytes, slow: Event) -> None:
    headers = {"If-None-Match": get(file, "/images?seed=7").headers["etag"]}

    async def ask(client: Client) -> Any:
        slow.clear()
        return await asyncio.wait_for(client.get("/images?seed=7", headers=headers), 5)

    assert run(file, ask).status_code == 304


def test_requests_share_tiles(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles: list[int] = []
    decode = Sampler.decode

    def count_and_decode(self: Sampler, z: NDArray[np.floating]) -> NDArray[np.uint8]:
        tiles.append(len(z))
        return decode(self, z)

    monkeypatch.setattr(Sampler, "decode", count_and_decode)

    async def many() -> list[NDArray[np.uint8]]:
        drawer = TileDrawer(sampler, tile=64)
        orders = [drawer.draw(1 + seed % 9, seed=seed, start=seed) for seed in range(40)]
        big = drawer.draw(150, seed=99, start=0)
        return await asyncio.gather(*orders, big)

    *small, big = asyncio.run(many())
    assert sum(tiles) == sum(map(len, small)) + 150
    assert len(tiles) == -(-sum(tiles) // 64)
    assert max(tiles) == 64
    for seed, drawn in enumerate(small):
        np.testing.assert_array_equal(drawn, sampler.sample(1 + seed % 9, seed=seed, start=seed))
    np.testing.assert_array_equal(big, sampler.sample(150, seed=99))


def test_what_fails_is_told_to_those_who_wait_and_the_rest_goes_on(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = Sampler.latents

    def fail_once(self: Sampler, count: int, *, seed: int, start: int) -> NDArray[np.float32]:
        if seed == 13:
            raise MemoryError("no room")
        return latents(self, count, seed=seed, start=start)

    monkeypatch.setattr(Sampler, "latents", fail_once)

    async def three() -> list[Any]:
        drawer = TileDrawer(sampler, tile=4)
        orders = [drawer.draw(4, seed=seed, start=0) for seed in (12, 13, 14)]
        return await asyncio.gather(*orders, return_exceptions=True)

    before, failed, after = asyncio.run(three())
    assert isinstance(failed, MemoryError)
    np.testing.assert_array_equal(before, sampler.sample(4, seed=12))
    np.testing.assert_array_equal(after, sampler.sample(4, seed=14))


def test_too_much_work_is_refused_with_a_time_to_come_back(file: bytes, slow: Event) -> None:
    async def crowd(client: Client) -> list[Any]:
        slow.clear()
        requests = [client.get(f"/images?seed={seed}&count=4") for seed in range(40)]
        tasks = [asyncio.create_task(request) for request in requests]
        while sum(task.done() for task in tasks) < 30:  # requests that find no room
            await asyncio.sleep(0.01)
        slow.set()
        answers = await asyncio.gather(*tasks)
        return [*answers, await client.get("/images?count=4")]

    *answers, later = run(file, crowd, waiting=40, seconds=60)
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 30
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["cache-control"] == "no-store"
    assert later.status_code == 200  # there is room again


def test_a_request_waits_only_so_long_and_leaves_no_work_behind(file: bytes, slow: Event) -> None:
    async def late(client: Client) -> list[Any]:
        slow.clear()
        late = await asyncio.gather(*[client.get("/images?count=8") for _ in range(5)])
        slow.set()
        return [*late, await client.get("/images?count=40")]

    *late_answers, later = run(file, late, seconds=0.2, waiting=40)
    for answer in late_answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "not ready within 0.2 seconds" in answer.text
    assert later.status_code == 200


def test_the_document_is_openapi_and_needs_nothing_from_elsewhere(file: bytes) -> None:
    document = get(file, "/openapi.json").json()
    assert document["openapi"].startswith("3.")
    names = [each["name"] for each in document["paths"]["/images"]["get"]["parameters"]]
    assert names == ["seed", "start", "count", "format"]


@pytest.mark.parametrize(
    ("path", "words"),
    [("/", 'generates images with a small neural network.*href="docs".*href="health"'),
     ("/docs", r"<code>seed</code><td>0 to 9223372036854775807.*<td>429<td>Too much is waiting")],
)  # fmt: skip
def test_the_pages_say_what_this_is_and_need_nothing_from_elsewhere(
    file: bytes, path: str, words: str
) -> None:
    page = get(file, path)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert re.search(words, page.text, re.DOTALL)
    # All addresses are relative and allowed by the policy.
    assert not re.findall(r'(?:src|href)="(?:\w+:|/)', page.text)
    assert "<script" not in page.text
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; img-src 'self'; style-src 'sha256-")
    (style,) = re.findall(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert b64encode(hashlib.sha256(style.encode()).digest()).decode() in policy


def test_the_pages_escape_what_the_artifact_says(sampler: Sampler) -> None:
    odd = replace(sampler.metadata, dataset="<script>a</script>", classes=("<b>", '"'))
    text = bytes(front_page(odd).body).decode()
    assert "<script" not in text
    assert "&lt;b&gt;, &quot;" in text


@contextmanager
def serving(artifact: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the service in another process on a free port; gives its address."""
    command = [sys.executable, "-m", "examples.http_service", str(artifact), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--provider", "cpu", *options], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "running on " in line:
                yield process, line.partition("running on ")[2].split()[0]
                break
        else:
            raise AssertionError("the service did not start")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_sigterm_answers_what_was_asked_and_takes_in_no_more(golden_artifact: Path) -> None:
    with serving(golden_artifact) as (process, address):
        assert process.stderr is not None
        host, port = address.removeprefix("http://").split(":")

        async def stop_amid_requests() -> list[bytes]:
            asked = "GET /images?count=1024 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
            connections = [await asyncio.open_connection(host, int(port)) for _ in range(8)]
            for _, writer in connections:
                writer.write(asked.encode())
            first = await connections[0][0].read(100)  # all requests have arrived by now
            process.send_signal(signal.SIGTERM)
            answers = [await reader.read() for reader, _ in connections]
            for _, writer in connections:
                writer.close()
            return [first + answers[0], *answers[1:]]

        answers = asyncio.run(stop_amid_requests())
        assert process.wait(10) in {0, -signal.SIGTERM}
        for answer in answers:
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert Image.open(io.BytesIO(body)).size == (32 * 18 + 2, 32 * 18 + 2)
        assert "Finished server process" in process.stderr.read()


def test_an_artifact_that_is_none_ends_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "generator.onnx").write_bytes(b"\x00" * 100)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ArtifactError) as refusal:
            Sampler(path)
        assert main([str(path)]) == 1
        assert capsys.readouterr().err == f"error: {refusal.value}\n"


@pytest.mark.parametrize(
    "options",
    [
        "--most-images 0", "--most-images -5", "--most-images 99999999", "--most-waiting 0",
        "--most-waiting 5", "--most-connections 1", "--most-connections 65536",
        "--seconds nan", "--seconds inf", "--seconds 0", "--seconds -1", "--port 65536",
        "--port -1", "--provider tpu",
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(
    golden_artifact: Path, options: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    with pytest.raises(SystemExit) as stopped:
        main([str(golden_artifact), *options.split()])
    assert stopped.value.code == 2
    option, value = options.split()
    message = capsys.readouterr().err
    assert option.removeprefix("--") in message
    assert value in message


def test_more_waiting_images_than_the_memory_holds_are_refused(
    golden_artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_memory", lambda: 10_000)
    with pytest.raises(SystemExit) as stopped:
        main([str(golden_artifact)])
    assert stopped.value.code == 2
    assert "8,192 images of this size that wait (--most-waiting) need" in capsys.readouterr().err
