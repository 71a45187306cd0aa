"""Styles and scripts of the pages; their addresses carry their hash, so browsers may keep them."""

import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from moelab.report.page import safe_json


async def static(request: Request) -> Response:
    """A script or style of a page."""
    name = request.path_params["name"]
    if name not in STATIC:
        return PlainTextResponse("no such file", status_code=404)
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(static_text(name), media_type=STATIC[name], headers=headers)


STATIC = {
    "app.css": "text/css",
    "app.js": "text/javascript",
    "fit.js": "text/javascript",
    "charts.js": "text/javascript",
}


@cache
def static_text(name: str) -> str:
    """The styles; the script of a page; or the library that draws charts."""
    from moelab.report.dark import DARK_COLORS
    from moelab.report.page import chart_library

    def read(room: str, file: str) -> str:
        return files(f"moelab.{room}").joinpath(f"templates/{file}").read_text(encoding="utf-8")

    if name == "charts.js":
        return chart_library()
    if name == "app.css":
        return read("report", "page.css") + read("app", "app.css")
    colors = f"const darkColors = {safe_json(DARK_COLORS)};\n"
    return colors + read("report", "charts.js") + read("report", "tables.js") + read("app", name)


@cache
def stamp() -> str:
    """What changes whenever a static file does."""
    return hashlib.sha256("".join(static_text(name) for name in STATIC).encode()).hexdigest()[:12]
