"""The HTTP application: the page, POST /predict, its OpenAPI description, health and counters.

No path of a request is ever opened: a file name that a client sends is only repeated in the answer.
"""
# The extra 'serve' may be missing where types are checked.
# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from gluon_ft.errors import NetworkError, UserError
from gluon_ft.evaluation.predict import Prediction
from gluon_ft.serving import openapi
from gluon_ft.serving.batching import Batcher, Busy
from gluon_ft.serving.counters import Counters
from gluon_ft.serving.page import page

RETRY_AFTER = 1  # seconds, where too many wait
_LONGEST_NAME = 255
_DRAIN = 5.0  # seconds
_POLICY = "frame-ancestors 'none'"
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Limits:
    """Bounds of one request: bytes of it all, images in it, and seconds until all of it has come."""

    most_bytes: int = 50_000_000
    most_images: int = 32
    seconds: float = 60.0


class App:
    """What answers the requests.

    Parameters
    ----------
    batcher : Batcher
    counters : Counters
    limits : Limits
    changed : callable() -> bool
        Whether the model's file on disk is another than the one that was loaded.
    title : str
        Of the page.
    local : bool, default True
        Refuse requests for any host but this one, as a page of another site would send them after it has had its own
        name point here.
    """

    def __init__(self, batcher: Batcher, counters: Counters, limits: Limits, changed: Callable[[], bool], title: str,
                 local: bool = True):
        self._batcher, self._counters, self._limits, self._changed = batcher, counters, limits, changed
        self._local = local
        predictor = batcher.predictor
        self._description = openapi.description(predictor.names, predictor.known is not None, limits)
        self._page = page.served(title, predictor, limits)
        answers: dict[str, tuple[str, Callable[[Request], Awaitable[Response]]]] = {
            "/": ("GET", self._show), "/predict": ("POST", self._predict), "/openapi.json": ("GET", self._describe),
            "/healthz": ("GET", self._health), "/metrics": ("GET", self._metrics)}
        self.asgi = Starlette(
            routes=[Route(path, self._watched(path, answer), methods=[method])
                    for path, (method, answer) in answers.items()],
            exception_handlers={HTTPException: _refusal, Exception: _failure})

    def _watched(self, path: str, answer: Callable[[Request], Awaitable[Response]]) -> Callable[..., Any]:
        @functools.wraps(answer)
        async def run(request: Request) -> Response:
            began, status = time.perf_counter(), 500
            try:
                if self._local and request.headers.get("host", "").rpartition(":")[0] not in _LOOPBACK \
                        and request.headers.get("host") not in _LOOPBACK:
                    raise HTTPException(403, "this server is for this machine alone (http://127.0.0.1)")
                response = await answer(request)
                status = response.status_code
                return response
            except HTTPException as error:
                status = error.status_code
                raise
            except ClientDisconnect:
                status = 499  # nobody is there to be answered, as nginx counts it
                return Response(status_code=400)
            finally:
                self._counters.answered(path, status, time.perf_counter() - began)
        return run

    async def _show(self, request: Request) -> Response:
        return HTMLResponse(self._page, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache",
                                                 "X-Content-Type-Options": "nosniff"})

    async def _describe(self, request: Request) -> Response:
        return JSONResponse(self._description)

    async def _health(self, request: Request) -> Response:
        alive = self._batcher.is_alive
        found = {"status": "ok" if alive else "failed", "waiting": self._batcher.waiting,
                 "model_changed_on_disk": await asyncio.to_thread(self._changed)}
        return JSONResponse(found, 200 if alive else 503)

    async def _metrics(self, request: Request) -> Response:
        self._counters.waiting.set(self._batcher.waiting)
        return Response(self._counters.text(), media_type=self._counters.media_type)

    async def _predict(self, request: Request) -> Response:
        body = _Body(request, self._limits.most_bytes, self._too_large())
        try:
            return await self._answer(request, body)
        except HTTPException:
            await body.drain()
            raise

    async def _answer(self, request: Request, body: _Body) -> Response:
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise HTTPException(415, "send the images as multipart/form-data (curl -F image=@photo.jpg)")
        if int(_digits(request.headers.get("content-length"))) > self._limits.most_bytes:
            raise body.too_large
        # One place for the request itself, so that those who are still sending are bounded too.
        self._reserve(1)
        try:
            return await self._received(Request(request.scope, body.receive))
        finally:
            self._batcher.release(1)

    async def _received(self, request: Request) -> Response:
        # One file more than may be: where there are still more, Starlette stops reading and refuses them itself.
        form = await self._in_time(request.form(max_files=self._limits.most_images + 1, max_fields=100))
        try:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            texts = [name for name, value in form.multi_items() if not isinstance(value, UploadFile)]
            if texts or not files:
                found = f"field '{texts[0][:80]}' is text" if texts else "there is none"
                raise HTTPException(400, f"files with images are expected, {found}")
            if len(files) > self._limits.most_images:
                raise HTTPException(413, f"at most {self._limits.most_images} images a request (--max-images)")
            self._reserve(len(files) - 1)
            try:
                results = await self._answers(files)
            finally:
                self._batcher.release(len(files) - 1)
        finally:
            await form.close()
        unreadable = sum(one.error is not None for one in results)
        self._counters.images(len(results) - unreadable, unreadable)
        # As the exit status of `gluon-ft predict`: an error only where no image could be read.
        return JSONResponse(openapi.answer(results), 422 if unreadable == len(results) else 200)

    async def _answers(self, files: list[UploadFile]) -> list[Prediction]:
        coming = [asyncio.wrap_future(self._batcher.submit((file.filename or "")[:_LONGEST_NAME], file.file.read))
                  for file in files]
        try:
            return list(await asyncio.gather(*coming))
        except NetworkError as error:
            raise HTTPException(500, str(error)) from error
        finally:
            # Their files are closed next.
            await asyncio.gather(*coming, return_exceptions=True)

    async def _in_time(self, form: Any) -> Any:
        try:
            return await asyncio.wait_for(_entered(form), self._limits.seconds)
        except asyncio.TimeoutError:
            raise HTTPException(408, f"the request took more than {self._limits.seconds:g} s to arrive",
                                {"Connection": "close"}) from None
        except ValueError as error:  # which older versions of Starlette do not make an answer of
            raise HTTPException(400, f"not a form that can be read: {error}") from error

    def _reserve(self, number: int) -> None:
        try:
            self._batcher.reserve(number)
        except Busy:
            raise HTTPException(503, f"{self._batcher.most} images are waiting already; try again",
                                {"Retry-After": str(RETRY_AFTER), "Connection": "close"}) from None

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"at most {self._limits.most_bytes / 1e6:g} MB a request (--max-mb)",
                             {"Connection": "close"})


async def _entered(form: Any) -> Any:
    return await form


def _digits(text: str | None) -> str:
    return text if text and text.isascii() and text.isdigit() and len(text) < 19 else "0"


class _Body:
    """A request's body as it comes; receiving raises `too_large` where more than `most` bytes come."""

    def __init__(self, request: Request, most: int, too_large: HTTPException):
        self._receive, self._most, self.too_large = request.receive, most, too_large
        self._got, self._ended = 0, False

    async def receive(self) -> Any:
        message = await self._receive()
        self._got += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._got > self._most:
            raise self.too_large
        return message

    async def drain(self) -> None:
        """Throws away what still comes, for a while: a client that is still sending would not hear the answer."""
        async def rest() -> None:
            while not self._ended:
                with contextlib.suppress(HTTPException):
                    await self.receive()

        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(rest(), _DRAIN)


def _refusal(request: Request, error: Any) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _failure(request: Request, error: Exception) -> Response:
    said = str(error) if isinstance(error, UserError) else "the server failed; its terminal says why"
    return JSONResponse({"error": said}, 500)


def watch(path: Path) -> Callable[[], bool]:
    """A function that says whether the file at `path` is another than now: replaced, written to or removed."""
    def stamp() -> tuple[int, ...] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    before = stamp()
    return lambda: stamp() != before
