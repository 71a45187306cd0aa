"""The planner page over HTTP: Starlette routes, a visitor's cookie, answers from warm processes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from moelab.app.answers import DOWNLOADS, Answer, answer, changes, download, evidence, refused, templates
from moelab.app.controls import groups
from moelab.app.fit_routes import fit_routes
from moelab.app.guard import Guard
from moelab.app.jobs import Jobs
from moelab.app.limits import READ_SECONDS, limited
from moelab.app.requests import COOKIE, body, refusal, seen_by, visitor_of
from moelab.app.state import EXAMPLE, State, as_given, read_state, unknown_fields
from moelab.app.static import stamp, static
from moelab.app.uploads import Uploads
from moelab.app.warm import check_fit, readers, warm
from moelab.app.workers import FIRST, LATER, NEXT, Workers
from moelab.errors import InputError, MoelabError
from moelab.report.page import safe_json

PARTS = {"answer": (answer, FIRST), "evidence": (evidence, NEXT), "changes": (changes, LATER)}
"""Parts of the page: who computes them, and their rank among what waits."""


def application(hosts: tuple[str, ...] = (), frames: tuple[str, ...] = (), processes: int = 2) -> Starlette:
    """The app: `hosts` it answers to besides loopback, sites that may frame it, and processes that plan."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.workers, app.state.uploads = Workers(processes, warm), Uploads()
        app.state.jobs, app.state.tables = Jobs(), Workers(1, readers)
        app.state.workers.start()
        yield
        app.state.jobs.close()
        for workers in (app.state.workers, app.state.tables):
            workers.stop()
        app.state.uploads.close()

    routes = [
        Route("/", page),
        Route("/part/{part}", part),
        Route("/download/{name}", downloaded),
        Route("/upload", upload, methods=["POST"]),
        *fit_routes(),
        Route("/static/{name}", static),
    ]
    guard = Middleware(Guard, hosts=hosts, frames=frames)
    app = Starlette(routes=routes, middleware=[guard], exception_handlers={Exception: unexpected}, lifespan=lifespan)
    app.state.framed = bool(frames)
    return app


async def unexpected(request: Request, error: Exception) -> Response:
    """An error of ours in one line; Starlette raises it again, for the server's log."""
    text = f"error: unexpected {type(error).__name__}; the server's log has more"
    if request.url.path.startswith(("/part/", "/fit/", "/upload")):
        return JSONResponse(Answer(error=text).to_dict(), status_code=500)
    return PlainTextResponse(text, status_code=500)


async def page(request: Request) -> Response:
    """The whole page, its answer included, so that it can be read without scripts. Fields that the page has not are
    named and left out; where a value is refused, every field keeps what the address gives it."""
    given = request.query_params.multi_items()
    unknown = unknown_fields(given)
    pairs = [pair for pair in given if pair[0] not in unknown] or list(EXAMPLE.items())
    state, rest = as_given(pairs), Answer()
    try:
        state = read_state(pairs)
        found = await _ask(request, "answer", state)
        if not found.error:
            rest = await _ask(request, "evidence", state)
    except InputError as error:
        found = refused(error)
    html = (
        templates()
        .get_template("app.html.j2")
        .render(
            groups=groups(), state=state, unknown=unknown, answer=found, evidence=rest, specs=safe_json(rest.specs),
            downloads=DOWNLOADS, stamp=stamp(), example=urlencode(EXAMPLE),
        )
    )  # fmt: skip
    return seen_by(request, HTMLResponse(html, status_code=200 if not found.error else 422))


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
        content = await _asked(request, (name, state.query), download, state, _files(request, state), name)
    except MoelabError as error:
        return PlainTextResponse(str(error), status_code=422)
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=DOWNLOADS[name], headers=headers)


async def upload(request: Request) -> Response:
    """Take a fit file as data; the reply has its SHA-256 and the laws in it."""
    uploads: Uploads = request.app.state.uploads
    try:
        visitor, content = visitor_of(request), await body(request)
        digest = uploads.keep(visitor, content, ".json")
    except InputError as error:
        return refusal(error)
    try:
        path = uploads.path(visitor, digest)
        laws = await request.app.state.tables.ask(("fit", digest), limited, READ_SECONDS, check_fit, path)
    except MoelabError as error:
        hidden = uploads.path(visitor, digest)
        uploads.drop(visitor, digest)
        return refusal(error, hidden)
    return JSONResponse({"sha256": digest, "laws": laws})


async def _ask(request: Request, name: str, state: State) -> Answer:
    paths = _files(request, state)
    try:
        function, rank = PARTS[name]
        found: Answer = await _asked(request, (name, state.query), function, state, paths, rank=rank)
    except MoelabError as error:
        return Answer(error=str(error))
    return found


async def _asked(
    request: Request, key: Any, function: Callable[..., Any], state: State, *arguments: Any, rank: int = LATER
) -> Any:
    """Ask the process that has this state's plan, or else its planner, as long as the visitor stays."""
    workers: Workers = request.app.state.workers
    return await workers.ask(
        key, function, state, *arguments,
        home=state.query, kin=state.planner, rank=rank, gone=request.is_disconnected,
    )  # fmt: skip


def _files(request: Request, state: State) -> dict[str, str]:
    """The paths of the visitor's own uploads; InputError for one that this visitor did not bring."""
    uploads: Uploads = request.app.state.uploads
    return {digest: uploads.path(request.cookies.get(COOKIE, ""), digest) for digest in state.uploads}
