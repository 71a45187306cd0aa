"""What the pages share: the visitor's cookie, bodies of limited size, refusals in one line."""

import asyncio
from collections.abc import Callable
from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from moelab.app.uploads import MOST_BYTES, new_visitor
from moelab.errors import InputError

COOKIE = "moelab_visitor"
WEEK = 7 * 86400


LONGEST_UPLOAD = 120.0
"""Seconds after which a body that is still coming is refused: a slow one holds what it has sent so far in memory."""


class TooLarge(InputError):
    """A body beyond the limit."""


class TooSlow(InputError):
    """A body that takes too long."""


def seen_by(request: Request, reply: Response) -> Response:
    """The reply, with a cookie for a visitor who has none; in another site's frame browsers send `none` alone."""
    if COOKIE not in request.cookies:
        framed = request.app.state.framed
        secure = framed or request.url.scheme == "https"
        same: Literal["none", "strict"] = "none" if framed else "strict"
        reply.set_cookie(COOKIE, new_visitor(), max_age=WEEK, httponly=True, samesite=same, secure=secure)
    return reply


def visitor_of(request: Request) -> str:
    """The visitor's name. Raises InputError where the browser sends no cookie."""
    name = request.cookies.get(COOKIE, "")
    if not name:
        raise InputError("file: needs the cookie that the page has set; open the page first")
    return name


async def body(request: Request) -> bytes:
    """The request's body. Raises TooLarge beyond 20 MB, of which no more is held, and TooSlow beyond two minutes."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > MOST_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(LONGEST_UPLOAD):
            return await _received(request)
    except TimeoutError:
        raise TooSlow(f"file: took more than {LONGEST_UPLOAD:g} s to arrive") from None


async def _received(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise _too_large()
    return bytes(content)


def _too_large() -> TooLarge:
    return TooLarge(f"file: at most {MOST_BYTES // 10**6} MB here; the commands have no such limit")


def refusal(error: Exception, hidden: str = "", words: Callable[[str], str] = str) -> JSONResponse:
    """The error as JSON, without the path `hidden`, in the `words` of a page."""
    text = words(str(error))
    if hidden:
        text = text.replace(f"fit file {hidden}", "fit file").replace(f"fit file: {hidden}", "fit file: this file")
        text = text.replace(hidden, "the file")
    status = 413 if isinstance(error, TooLarge) else 408 if isinstance(error, TooSlow) else 422
    return JSONResponse({"error": text}, status_code=status)
