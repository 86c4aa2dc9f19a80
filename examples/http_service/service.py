"""The service: `create_app` makes an ASGI application of an artifact's bytes.

Installed from the wheel, `inference` is called `ganpack`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from io import BytesIO
from typing import Annotated

import numpy as np
from fastapi import FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse
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
    Problem,
    asked_label,
    images_up_to,
)
from examples.http_service.tiles import TileDrawer
from inference import ArtifactError, Sampler, __version__
from inference.label import number_of, typed
from inference.writing.pictures import grid


def create_app(artifact: bytes, *, provider: str = "auto", limits: Limits = DEFAULTS) -> FastAPI:
    """The application that draws from the bytes of a generator.onnx.

    Raises:
        ArtifactError, ProviderError: as `Sampler`.
    """
    sampler = Sampler(artifact, provider=provider)
    health = _health(sampler, hashlib.sha256(artifact).hexdigest())
    desk = _Desk(TileDrawer(sampler), limits, sampler.metadata.classes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.drawer.close()

    # The pages that FastAPI has for the document fetch scripts from elsewhere: none of them.
    app = FastAPI(
        title="ganpack", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    bounded = images_up_to(limits.count, sampler.metadata.classes)

    @app.get("/images", response_class=Response, responses=RESPONSES, summary="Images of a seed")
    async def images(
        query: Annotated[bounded, Query()],  # type: ignore[valid-type]
        if_none_match: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Response:
        """Image i of a seed is always the same image, so an answer may be kept."""
        return await desk.answer(query, health.artifact_sha256, if_none_match)

    @app.get("/health", responses={200: {"model": Health}, 503: {"model": Health}})
    async def does_it_draw_what_it_should() -> Response:
        status = 503 if health.status == "failed" else 200
        return JSONResponse(health.model_dump(), status, {"Cache-Control": "no-store"})

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        problem = Problem(detail=str(refusal)).model_dump()
        return JSONResponse(problem, refusal.status, refusal.headers)

    return app


class Refusal(Exception):
    """A request that is not answered with images."""

    def __init__(self, status: int, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = {"Cache-Control": "no-store"}
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)


class _Desk:
    """Takes in requests as long as there is room, and sees each of them answered in time."""

    def __init__(self, drawer: TileDrawer, limits: Limits, classes: Sequence[str]) -> None:
        self.drawer, self._limits, self._classes = drawer, limits, classes
        self._waiting = 0

    async def answer(self, query: Images, artifact: str, if_none_match: str | None) -> Response:
        if query.start + query.count > LAST + 1:
            raise Refusal(404, f"the last image of a seed is {LAST}")
        # Weak: another processor may draw, and another zlib write, other bytes of the same image.
        text = asked_label(query)
        label = None if text is None else number_of(typed(text, self._classes), self._classes)
        of_label = "" if label is None else f"-{label}"
        place = f"{query.seed}-{query.start}-{query.count}-{query.format}{of_label}"
        tag = f'"{artifact[:16]}-{place}"'
        headers = {
            "ETag": f"W/{tag}",
            "Cache-Control": f"public, max-age={self._limits.cache_seconds}, immutable",
        }
        if _matches(if_none_match, tag):
            return Response(status_code=304, headers=headers)
        content = await self._content(query, label)
        return Response(content, media_type=MEDIA_TYPES[query.format], headers=headers)

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
                message = f"not drawn within {limits.seconds:g} seconds"
                raise Refusal(503, message, retry_after=5) from None

    @contextmanager
    def _room_for(self, count: int) -> Iterator[None]:
        if self._waiting + count > self._limits.waiting:
            raise Refusal(429, f"{self._waiting} images are waiting to be drawn", retry_after=1)
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
    try:
        result = sampler.check()
    except ArtifactError:  # from before there were golden images
        status, check = "unchecked", None
    else:
        status, check = "passed" if result.passed else "failed", asdict(result)
    return Health.model_validate(
        {
            "status": status,
            "provider": sampler.provider,
            "artifact_sha256": artifact_sha256,
            "check": check,
        }
    )
