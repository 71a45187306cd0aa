"""What a state of the planner page answers, as parts of a page: computed in a process of its own."""

import re
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from moelab.app.state import State
from moelab.errors import InputError, MoelabError
from moelab.planning.plan import Planner
from moelab.planning.plan_page import changes_section, plan_page, write_plan_page
from moelab.planning.request import plan_request
from moelab.planning.result import Plan
from moelab.report.page import Page, Section, environment, numbered, section_specs

DOWNLOADS = {
    "run.yaml": "application/yaml",
    "config.json": "application/json",
    "torchtitan.py": "text/x-python",
    "megatron.args": "text/plain",
    "plan.json": "application/json",
    "plan.html": "text/html",
}
"""Files that a plan can be downloaded as, and their media types."""


@dataclass(frozen=True)
class Answer:
    """A part of the page: its HTML and the specifications of its charts; or `error`, one line, and its `field`."""

    html: str = ""
    specs: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    field: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the page's script."""
        return {"html": self.html, "specs": self.specs, "error": self.error, "field": self.field}


PLANNERS, PLANS = 3, 4
"""How many planners (a space and laws) and plans a process keeps: about 150 MB and 5 MB each."""


def made_plan(state: State, files: Mapping[str, str]) -> Plan:
    """The plan of a state; `files` gives the path of each upload. Raises InputError as `moelab plan` does."""
    return _plan(state.query, state, tuple(files.items()))


@lru_cache(PLANS)
def _plan(query: str, state: State, files: tuple[tuple[str, str], ...]) -> Plan:
    options = state.options(dict(files))
    request = plan_request(options)
    planner = _PLANNERS.pop(state.planner, None) or Planner(
        request.laws, request.space, extrapolate=request.extrapolate
    )
    _PLANNERS[state.planner] = planner
    while len(_PLANNERS) > PLANNERS:
        _PLANNERS.popitem(last=False)
    return planner.plan(request.budget, top=request.top)


_PLANNERS: OrderedDict[Any, Planner] = OrderedDict()


def answer(state: State, files: Mapping[str, str]) -> Answer:
    """The sentence with its doubt, the designs and all the evidence but what would change the answer."""
    try:
        page = plan_page(made_plan(state, files), state.command, changes=False)
    except MoelabError as error:
        return refused(error)
    return rendered(page)


def changes(state: State, files: Mapping[str, str]) -> Answer:
    """The section on what changes the answer, which takes as long as the answer itself."""
    try:
        section = changes_section(made_plan(state, files))
    except MoelabError as error:
        return refused(error)
    return rendered_sections([section], "changes")


def download(state: State, files: Mapping[str, str], name: str) -> bytes:
    """One of `DOWNLOADS`. Raises InputError where the design has no such file."""
    from moelab.export.plan_files import write_plan

    plan = made_plan(state, files)
    folder = Path(tempfile.mkdtemp(prefix="moelab-"))
    try:
        if name == "plan.html":
            return write_plan_page(plan, folder / name, state.command).read_bytes()
        written = write_plan(plan, folder)
        if name in written.left_out:
            raise InputError(f"{name}: {written.left_out[name]}")
        return (folder / name).read_bytes()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refused(error: Exception) -> Answer:
    """The message of bad input, and the first field that it names."""
    from moelab.app.controls import controls

    names = [word.replace("_", "-") for word in re.findall(r"[a-z]+(?:[_-][a-z]+)*", str(error))]
    return Answer(error=str(error), field=next((name for name in names if name in controls()), ""))


def rendered(page: Page) -> Answer:
    """All of a page but its frame."""
    specs = section_specs(page.sections)
    html = (
        templates()
        .get_template("answer.html.j2")
        .render(page=page, sections=numbered(page.sections), stills=[None] * len(specs), repeat=page.repeat)
    )
    return Answer(html, specs)


def rendered_sections(sections: Sequence[Section], prefix: str) -> Answer:
    """Sections alone, with anchors that begin with `prefix`."""
    specs = section_specs(sections)
    parts = [{**part, "id": f"{prefix}-{number}"} for number, part in enumerate(numbered(sections), 1)]
    return Answer(
        templates().get_template("sections.html.j2").render(sections=parts, stills=[None] * len(specs)), specs
    )


@cache
def templates() -> Any:
    """The templates of this room and, beside them, the report's."""
    import jinja2

    loaders = [jinja2.PackageLoader(f"moelab.{room}") for room in ("app", "report")]
    return environment().overlay(loader=jinja2.ChoiceLoader(loaders))
