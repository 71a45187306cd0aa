"""What the pages share: the visitor's cookie, bodies of limited size, refusals in one line."""

from typing import Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from moelab.app.uploads import MOST_BYTES, new_visitor
from moelab.errors import InputError

COOKIE = "moelab_visitor"
WEEK = 7 * 86400


class TooLarge(InputError):
    """A body beyond the limit."""


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
    """The request's body. Raises TooLarge beyond 20 MB, of which no more is ever held."""
    length = request.headers.get("content-length", "0")
    too_large = TooLarge(f"file: at most {MOST_BYTES // 10**6} MB here; the commands have no such limit")
    if not length.isdigit() or int(length) > MOST_BYTES:
        raise too_large
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            raise too_large
    return bytes(content)


def refusal(error: Exception, hidden: str = "") -> JSONResponse:
    """The error as JSON, without the path `hidden`."""
    text = str(error).replace(hidden, "the file") if hidden else str(error)
    return JSONResponse({"error": text}, status_code=413 if isinstance(error, TooLarge) else 422)
