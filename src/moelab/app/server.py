"""The planner page over HTTP: Starlette routes, a visitor's cookie, answers from warm processes."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from moelab.app.answers import DOWNLOADS, Answer, answer, changes, download, refused, templates
from moelab.app.controls import groups
from moelab.app.guard import Guard
from moelab.app.state import EXAMPLE, State, read_state
from moelab.app.uploads import MOST_BYTES, Uploads, new_visitor
from moelab.app.warm import check_fit, warm
from moelab.app.workers import Workers
from moelab.errors import InputError, MoelabError
from moelab.report.page import safe_json

COOKIE = "moelab_visitor"
WEEK = 7 * 86400
PARTS = {"answer": answer, "changes": changes}


def application(hosts: tuple[str, ...] = (), frames: tuple[str, ...] = (), processes: int = 2) -> Starlette:
    """The app: `hosts` it answers to besides loopback, sites that may frame it, and processes that plan."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.workers, app.state.uploads = Workers(processes, warm), Uploads()
        app.state.workers.start()
        yield
        app.state.workers.stop()
        app.state.uploads.close()

    routes = [
        Route("/", page),
        Route("/part/{part}", part),
        Route("/download/{name}", downloaded),
        Route("/upload", upload, methods=["POST"]),
        Route("/static/{name}", static),
    ]
    guard = Middleware(Guard, hosts=hosts, frames=frames)
    return Starlette(routes=routes, middleware=[guard], lifespan=lifespan)


async def page(request: Request) -> Response:
    """The whole page, its answer included, so that it can be read without scripts."""
    pairs = request.query_params.multi_items() or list(EXAMPLE.items())
    try:
        state = read_state(pairs)
        found = await _ask(request, "answer", state)
    except InputError as error:
        state, found = State({}), refused(error)
    html = templates().get_template("app.html.j2").render(
        groups=groups(), state=state, answer=found, specs=safe_json(found.specs), downloads=DOWNLOADS, stamp=stamp()
    )
    reply = HTMLResponse(html, status_code=200 if not found.error else 422)
    if COOKIE not in request.cookies:
        secure = request.url.scheme == "https"
        reply.set_cookie(COOKIE, new_visitor(), max_age=WEEK, httponly=True, samesite="strict", secure=secure)
    return reply


async def part(request: Request) -> Response:
    """One part of the page for its script: HTML, charts, or an error with its field."""
    name = request.path_params["part"]
    if name not in PARTS:
        return PlainTextResponse("no such part", status_code=404)
    try:
        found = await _ask(request, name, read_state(request.query_params.multi_items()))
    except InputError as error:
        found = refused(error)
    return JSONResponse(found.to_dict(), status_code=422 if found.error else 200)


async def downloaded(request: Request) -> Response:
    """A file of the plan."""
    name = request.path_params["name"]
    if name not in DOWNLOADS:
        return PlainTextResponse(f"no such file; known: {', '.join(DOWNLOADS)}", status_code=404)
    try:
        state = read_state(request.query_params.multi_items())
        content = await request.app.state.workers.ask(
            (name, state.query), download, state, _files(request, state), name
        )
    except (InputError, MoelabError) as error:
        return PlainTextResponse(str(error), status_code=422)
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=DOWNLOADS[name], headers=headers)


async def upload(request: Request) -> Response:
    """Take a fit file as data; the reply has its SHA-256 and the laws in it."""
    visitor = request.cookies.get(COOKIE, "")
    content = await _body(request)
    if content is None or not visitor:
        status, what = (413, f"at most {MOST_BYTES // 10**6} MB") if visitor else (403, "cookies are needed for files")
        return JSONResponse({"error": f"file: {what}"}, status_code=status)
    uploads: Uploads = request.app.state.uploads
    digest = uploads.keep(visitor, content, ".json")
    try:
        laws = await request.app.state.workers.ask(("fit", digest), check_fit, uploads.path(visitor, digest))
    except (InputError, MoelabError) as error:
        uploads.drop(visitor, digest)
        return JSONResponse({"error": str(error).replace(str(uploads.folder), "").lstrip("/")}, status_code=422)
    return JSONResponse({"sha256": digest, "laws": laws})


async def _body(request: Request) -> bytes | None:
    """The body, or None where it is larger than a file may be; no more than that is ever held."""
    if int(request.headers.get("content-length", "0") or 0) > MOST_BYTES:
        return None
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            return None
    return bytes(content)


async def static(request: Request) -> Response:
    """A script or style of the page; its address carries its hash, so browsers may keep it."""
    name = request.path_params["name"]
    if name not in STATIC:
        return PlainTextResponse("no such file", status_code=404)
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(static_text(name), media_type=STATIC[name], headers=headers)


STATIC = {"app.css": "text/css", "app.js": "text/javascript", "charts.js": "text/javascript"}


@cache
def static_text(name: str) -> str:
    """The styles; the page's script; or the library that draws charts."""
    from moelab.report.dark import DARK_COLORS
    from moelab.report.page import chart_library

    def read(room: str, file: str) -> str:
        return files(f"moelab.{room}").joinpath(f"templates/{file}").read_text(encoding="utf-8")

    if name == "charts.js":
        return chart_library()
    if name == "app.css":
        return read("report", "page.css") + read("app", "app.css")
    colors = f"const darkColors = {safe_json(DARK_COLORS)};\n"
    return colors + read("report", "charts.js") + read("report", "tables.js") + read("app", "app.js")


@cache
def stamp() -> str:
    """What changes whenever a static file does."""
    return hashlib.sha256("".join(static_text(name) for name in STATIC).encode()).hexdigest()[:12]


async def _ask(request: Request, name: str, state: State) -> Answer:
    paths = _files(request, state)
    try:
        found: Answer = await request.app.state.workers.ask((name, state.query), PARTS[name], state, paths)
    except MoelabError as error:
        return Answer(error=str(error))
    return found


def _files(request: Request, state: State) -> dict[str, str]:
    """The paths of the visitor's own uploads; InputError for one that this visitor did not bring."""
    visitor = request.cookies.get(COOKIE, "")
    return {digest: request.app.state.uploads.path(visitor, digest) for digest in state.uploads}
