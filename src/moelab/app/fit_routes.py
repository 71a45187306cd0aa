"""The fit page over HTTP: a table is mapped and checked, laws are fitted, the planner goes on with them."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from moelab.app.answers import templates
from moelab.app.fit_fields import UNITS, VARIABLES
from moelab.app.fit_words import fit_worded
from moelab.app.fitting import checks, examine, fit_page
from moelab.app.jobs import Jobs
from moelab.app.limits import FIT_SECONDS, READ_SECONDS, limited
from moelab.app.requests import COOKIE, body, refusal, seen_by, visitor_of
from moelab.app.static import stamp
from moelab.app.uploads import Uploads
from moelab.errors import InputError, MoelabError
from moelab.planning.chosen_laws import published_laws

ENDINGS = (".csv", ".tsv", ".json", ".jsonl")
"""Tables that are plain text: what unpacks to more than it is stays out."""
LONGEST_NAME = 100


def fit_routes() -> list[Route]:
    """The routes of the fit page."""
    return [
        Route("/fit", fit),
        Route("/fit/table", table, methods=["POST"]),
        Route("/fit/check", check, methods=["POST"]),
        Route("/fit/jobs", start, methods=["POST"]),
        Route("/fit/jobs/{job}", look),
        Route("/fit/jobs/{job}", cancel, methods=["DELETE"]),
        Route("/fit/file/{digest}", file),
    ]


async def fit(request: Request) -> Response:
    """The page itself."""
    laws = [law.id for law in published_laws()]
    html = (
        templates()
        .get_template("fit.html.j2")
        .render(laws=laws, variables=VARIABLES, units=list(UNITS), endings=ENDINGS, stamp=stamp())
    )
    return seen_by(request, HTMLResponse(html))


async def table(request: Request) -> Response:
    """Take a table: its columns, first rows and suggested mapping."""
    uploads: Uploads = request.app.state.uploads
    name = request.query_params.get("name", "")[:LONGEST_NAME]
    try:
        visitor = visitor_of(request)
        ending = next((end for end in ENDINGS if name.lower().endswith(end)), None)
        if ending is None:
            raise InputError(f"file: expected a table ({', '.join(ENDINGS)}), got {name!r}")
        digest = uploads.keep(visitor, await body(request), ending)
        path = uploads.path(visitor, digest)
        key = ("table", visitor, digest, name)
        found = await request.app.state.tables.ask(key, limited, READ_SECONDS, examine, path, name)
    except MoelabError as error:
        return refusal(error)
    return JSONResponse({"sha256": digest, **found})


async def check(request: Request) -> Response:
    """The notes of `moelab fit --check` for a mapping."""
    try:
        asked, path, name = await _asked(request)
        key = ("check", path, json.dumps(asked["mapping"], sort_keys=True))
        asking = request.app.state.tables.ask(key, limited, READ_SECONDS, checks, path, name, asked["mapping"])
        return JSONResponse(await asking)
    except MoelabError as error:
        return refusal(error, words=fit_worded)


async def start(request: Request) -> Response:
    """Begin a fit."""
    jobs: Jobs = request.app.state.jobs
    try:
        asked, path, name = await _asked(request)
        arguments = (fit_page, path, name, asked["mapping"], asked["laws"])
        job = await jobs.start(visitor_of(request), limited, FIT_SECONDS, *arguments)
    except MoelabError as error:
        return refusal(error)
    return JSONResponse({"job": job})


async def look(request: Request) -> Response:
    """How far a fit is; its result, and the address under which the planner uses it, once it is done."""
    visitor = request.cookies.get(COOKIE, "")
    try:
        job = request.app.state.jobs.job(visitor, request.path_params["job"])
    except InputError as error:
        return refusal(error)
    if job.error:
        return refusal(InputError(fit_worded(job.error)))
    if job.running:
        return JSONResponse({"share": job.share})
    digest = request.app.state.uploads.keep(visitor, job.result["fits"], ".json")
    shown = {name: value for name, value in job.result.items() if name != "fits"}
    return JSONResponse({"share": 1.0, "sha256": digest, **shown})


async def cancel(request: Request) -> Response:
    """End a fit."""
    request.app.state.jobs.cancel(request.cookies.get(COOKIE, ""), request.path_params["job"])
    return JSONResponse({})


async def file(request: Request) -> Response:
    """The fit file, for `moelab predict` and `moelab plan`."""
    try:
        path = request.app.state.uploads.path(visitor_of(request), request.path_params["digest"])
    except InputError as error:
        return refusal(error)
    with open(path, "rb") as opened:
        content = opened.read()
    headers = {"content-disposition": 'attachment; filename="fit.json"'}
    return Response(content, media_type="application/json", headers=headers)


async def _asked(request: Request) -> tuple[dict[str, Any], str, str]:
    """The mapping and laws of a request, the path of its table, and the name that the visitor gave the table."""
    try:
        asked = json.loads(await body(request))
        name = str(asked["name"])[:LONGEST_NAME]
        mapping = {str(key): (str(column), str(unit)) for key, (column, unit) in dict(asked["mapping"]).items()}
        laws = [str(law) for law in asked.get("laws", [])]
        digest = str(asked["table"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError("fit: expected table, name, mapping {variable: [column, unit]} and laws") from None
    known = [law.id for law in published_laws()]
    unknown = [law for law in laws if law not in known]
    if unknown:
        raise InputError(f"laws: no such law {unknown[0][:40]!r}; known: {', '.join(known)}")
    path = request.app.state.uploads.path(visitor_of(request), digest)
    return {"mapping": mapping, "laws": laws}, path, name
