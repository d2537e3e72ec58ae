"""Limits of MLflow's server, which has none: type, size and form of a request body, and requests at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import fastapi
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inandout.errors import InputError
from inandout.serving.request_body import check_body

SERVER = "mlflow.pyfunc.scoring_server.app"
"""Module that MLflow's server imports; it loads the model, then creates its application."""
MAX_BODY = 24 * 2**20
"""Maximum size of a request body in bytes."""
MAX_BODIES = 8
"""Request bodies in memory at once; one of them is decoded and predicted at a time, others wait unread."""
MAX_READ_SECONDS = 30.0
"""Maximum time in which a client sends a body."""
MAX_WAIT_SECONDS = 120.0
"""Maximum time that a request waits for others."""


def guard_server() -> None:
    """Guard the application that MLflow's server creates in this process after it has loaded the model.

    MLflow offers no setting for this, so the class that it creates is replaced.
    """
    fastapi.FastAPI = GuardedApi  # type: ignore[misc]


class GuardedApi(fastapi.FastAPI):
    """A FastAPI application behind a `Guard`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.guard = Guard(super().__call__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        await self.guard(scope, receive, send)


_HEADERS = [(b"content-type", b"application/json")]
"""Headers of a checked request."""


class _RefusedError(Exception):
    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """Middleware: refuses a request with 4xx and one sentence, or 503 if the server is busy for too long."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.bodies = asyncio.Semaphore(MAX_BODIES)
        self.turn = asyncio.Semaphore(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; only POST /invocations is guarded."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("POST", "/invocations"):
            await self.app(scope, receive, send)
            return
        try:
            _check_headers(Request(scope))
            async with _place(self.bodies):
                body = await _read(Request(scope, receive))
                async with _place(self.turn):
                    body = await asyncio.to_thread(_checked, body)
                    await self.app({**scope, "headers": _HEADERS}, _replay(body, receive), send)
        except _RefusedError as error:
            content = json.dumps({"error_code": "BAD_REQUEST", "message": str(error)})
            close = {"connection": "close"}  # the rest of the body is not read
            await Response(content, error.status, close, "application/json")(scope, receive, send)
        except ClientDisconnect:
            pass


def _check_headers(request: Request) -> None:
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    parameters = [part.strip().lower() for part in rest.split(";") if part.strip()]
    if kind.strip().lower() != "application/json" or set(parameters) - {"charset=utf-8", 'charset="utf-8"'}:
        raise _RefusedError(415, f"the content type is {kind[:100]!r}; send application/json in UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _RefusedError(415, "the body is compressed; send it without content encoding")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal():
        raise _RefusedError(400, "content-length is not a number; send the number of bytes of the body")
    if len(length) > 20 or int(length) > MAX_BODY:
        raise _too_large()


def _too_large() -> _RefusedError:
    return _RefusedError(413, f"the body exceeds the limit of {MAX_BODY:,} bytes; send fewer or smaller images")


@asynccontextmanager
async def _place(places: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        await asyncio.wait_for(places.acquire(), MAX_WAIT_SECONDS)
    except TimeoutError as error:
        raise _RefusedError(503, "the server is busy; send the request again later") from error
    try:
        yield
    finally:
        places.release()


async def _read(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(MAX_READ_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise _too_large()
    except TimeoutError as error:
        raise _RefusedError(408, f"the body did not arrive in {MAX_READ_SECONDS:g} s; send it again") from error
    return bytes(body)


def _checked(body: bytes) -> bytes:
    try:
        return check_body(body)
    except InputError as error:
        raise _RefusedError(400, str(error)) from error


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """Return a `receive` that gives the body that was read."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
