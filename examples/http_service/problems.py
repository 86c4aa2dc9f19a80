"""Answers to requests that get no images. No cache keeps them."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from inference.label import number_of, typed

_NOT_KEPT = {"Cache-Control": "no-store"}


class Refusal(HTTPException):
    """A request that is not answered with images."""

    def __init__(self, status: int, detail: str, *, retry_after: int | None = None) -> None:
        retry = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, detail, retry)


def explain_problems(app: FastAPI, classes: Sequence[str]) -> None:
    """Make an application say in plain words what is wrong with a request."""

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> JSONResponse:
        headers, detail = {**_NOT_KEPT, **(error.headers or {})}, error.detail
        if detail == HTTPStatus(error.status_code).phrase:  # Starlette's: it found no route
            detail = f"nothing is at {request.url.path}: /images gives images, and /docs says how"
            if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                detail = f"{request.url.path} answers GET and HEAD, not {request.method}"
                headers["Allow"] = "GET, HEAD"
        return JSONResponse({"detail": detail}, error.status_code, headers)

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> JSONResponse:
        details = [_with_our_words(each, classes) for each in error.errors()]
        return JSONResponse({"detail": jsonable_encoder(details)}, 422, _NOT_KEPT)

    @app.exception_handler(Exception)
    async def confess(_: Request, __: Exception) -> JSONResponse:
        detail = "the service failed: its log has the reason"  # the server logs it afterwards
        return JSONResponse({"detail": detail}, 500, _NOT_KEPT)


def _with_our_words(problem: dict[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """A problem with a label in the words of `Sampler`."""
    if problem["loc"] == ("query", "label"):
        try:
            number_of(typed(str(problem["input"]), classes), classes)
        except ValueError as error:
            return {**problem, "msg": str(error)}
    return problem
