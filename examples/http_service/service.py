"""The service: `create_app` makes an ASGI application of an artifact's bytes.

Installed from the wheel, `inference` is called `ganpack`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from io import BytesIO
from math import prod
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from numpy.typing import NDArray
from PIL import Image

from examples.http_service.contract import (
    DEFAULTS,
    LAST,
    MEDIA_TYPES,
    RESPONSES,
    Health,
    Images,
    Limits,
    asked_label,
    images_up_to,
)
from examples.http_service.pages import docs_page, front_page
from examples.http_service.problems import Refusal, explain_problems
from examples.http_service.tiles import TileDrawer
from inference import Sampler, __version__
from inference.label import number_of, typed
from inference.writing.pictures import grid
from inference.writing.room import require_memory


def create_app(artifact: bytes, *, provider: str = "auto", limits: Limits = DEFAULTS) -> FastAPI:
    """The application that generates images from the bytes of a generator.onnx.

    Raises:
        ArtifactError, ProviderError: as `Sampler`.
        ValueError: if the memory cannot hold as many images as may wait.
    """
    sampler = Sampler(artifact, provider=provider)
    classes = sampler.metadata.classes
    size = limits.waiting * prod(sampler.metadata.image_shape)
    require_memory(size, f"{limits.waiting:,} images of this size that wait (--most-waiting)")
    health = _health(sampler, hashlib.sha256(artifact).hexdigest())
    desk = _Desk(TileDrawer(sampler), limits, health, classes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.drawer.close()

    # FastAPI's pages load scripts from the network, so /docs is a page of our own.
    app = FastAPI(
        title="ganpack", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    explain_problems(app, classes)
    bounded = images_up_to(limits.count, classes)

    def answers(path: str, **settings: Any) -> Callable[[Any], Any]:
        """Let a function answer GET and HEAD."""

        def add(function: Any) -> Any:
            app.head(path, include_in_schema=False)(function)
            return app.get(path, **settings)(function)

        return add

    @answers("/images", response_class=Response, responses=RESPONSES, summary="Images of a seed")
    async def images(
        request: Request,
        query: Annotated[bounded, Query()],  # type: ignore[valid-type]
        if_none_match: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Response:
        """Image i of a seed is always the same image, so an answer may be kept."""
        return await desk.answer(query, if_none_match, draw=request.method == "GET")

    @answers(
        "/health",
        responses={200: {"model": Health}, 503: {"model": Health, "description": "It does not."}},
        summary="Whether this process generates the right images",
    )
    async def is_it_healthy() -> Response:
        status = 503 if health.status == "failed" else 200
        return JSONResponse(health.model_dump(), status, {"Cache-Control": "no-store"})

    @answers("/", include_in_schema=False)
    async def what_it_is() -> HTMLResponse:
        return front_page(sampler.metadata)

    @answers("/docs", include_in_schema=False)
    async def how_to_ask() -> HTMLResponse:
        return docs_page(app.openapi())

    return app


class _Desk:
    """Takes in requests as long as there is room, and sees each of them answered in time."""

    def __init__(
        self, drawer: TileDrawer, limits: Limits, health: Health, classes: Sequence[str]
    ) -> None:
        self.drawer, self._limits, self._health, self._classes = drawer, limits, health, classes
        self._waiting = 0

    async def answer(self, query: Images, if_none_match: str | None, *, draw: bool) -> Response:
        """draw: whether the images themselves are wanted, not only the headers."""
        if self._health.status == "failed":  # caches would keep wrong images for a year
            raise Refusal(503, "its images are wrong or missing: /health has the reason")
        if query.start + query.count > LAST + 1:
            raise Refusal(404, f"the last image of a seed is {LAST}")
        # Weak: another processor or zlib may give other bytes for the same image.
        text = asked_label(query)
        label = None if text is None else number_of(typed(text, self._classes), self._classes)
        of_label = "" if label is None else f"-{label}"
        place = f"{query.seed}-{query.start}-{query.count}-{query.format}{of_label}"
        tag = f'"{self._health.artifact_sha256[:16]}-{place}"'
        headers = {
            "ETag": f"W/{tag}",
            "Cache-Control": f"public, max-age={self._limits.cache_seconds}, immutable",
        }
        if _matches(if_none_match, tag):
            return Response(status_code=304, headers=headers)
        media_type = MEDIA_TYPES[query.format]
        if not draw:
            response = Response(media_type=media_type, headers=headers)
            del response.headers["Content-Length"]  # 0 is not the length that GET has
            return response
        content = await self._content(query, label)
        return Response(content, media_type=media_type, headers=headers)

    async def _content(self, query: Images, label: int | None) -> bytes:
        limits = self._limits
        with self._room_for(query.count):
            try:
                async with asyncio.timeout(limits.seconds):
                    place = {"seed": query.seed, "start": query.start}
                    images = await self.drawer.draw(query.count, **place, label=label)
                    if query.format == "png" and query.count > 1:  # milliseconds
                        return await asyncio.to_thread(_encoded, images, query.format)
                    return _encoded(images, query.format)
            except TimeoutError:
                message = f"not ready within {limits.seconds:g} seconds"
                raise Refusal(503, message, retry_after=5) from None

    @contextmanager
    def _room_for(self, count: int) -> Iterator[None]:
        if self._waiting + count > self._limits.waiting:
            raise Refusal(429, f"{self._waiting} images are waiting already", retry_after=1)
        self._waiting += count
        try:
            yield
        finally:
            self._waiting -= count


def _encoded(images: NDArray[np.uint8], form: str) -> bytes:
    file = BytesIO()
    if form == "npy":
        np.save(file, images)
    else:
        picture = images[0] if len(images) == 1 else grid(images)
        # A hundredth more bytes than at Pillow's level 6, in two thirds of the time.
        Image.fromarray(picture).save(file, format="PNG", compress_level=4)
    return file.getvalue()


def _matches(if_none_match: str | None, tag: str) -> bool:
    """As RFC 9110 compares for If-None-Match: weakly.  tag: without W/."""
    tags = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
    return tag in tags or tags == ["*"]


def _health(sampler: Sampler, artifact_sha256: str) -> Health:
    """Generate an image, and compare the golden images if there are any."""
    status, check, problem = "unchecked", None, None
    try:
        sampler.sample(1)
        if sampler.metadata.golden:
            result = sampler.check()
            status, check = "passed" if result.passed else "failed", asdict(result)
    except Exception as error:  # whatever it is, this process cannot generate images
        status, problem = "failed", str(error)
    return Health.model_validate(
        {
            "status": status,
            "problem": problem,
            "provider": sampler.provider,
            "artifact_sha256": artifact_sha256,
            "check": check,
        }
    )
