"""What a state of the planner page answers, as parts of a page: computed in a process of its own."""

import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from moelab.app.labels import field_of, worded, worded_page, worded_sections
from moelab.app.state import NoSuchControl, State
from moelab.errors import InputError, MoelabError
from moelab.machine import freed_memory_kept
from moelab.planning.assemble import PlanBuilder
from moelab.planning.plan import Planner
from moelab.planning.plan_page import answer_page, changes_section, evidence_sections, plan_page
from moelab.planning.request import plan_request
from moelab.planning.result import Plan
from moelab.planning.what_if import WhatIf
from moelab.report.page import Page, Section, environment, lead_of, numbered, section_specs, write_page

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
    """A part of the page: its HTML and the specifications of its charts; or `error`, one line, and its `field`.

    `lead` is what stands above an answer: its sentences and numbers.
    """

    html: str = ""
    specs: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    field: str = ""
    lead: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the page's script."""
        return {name: getattr(self, name) for name in ("html", "specs", "error", "field", "lead")}


PLANNERS, BEGUN, PLANS = 3, 4, 16
"""How many planners (a space and laws), searches whose evidence is still to come, and plans a process keeps: about 150,
90 and 5 MB each."""


Kept = TypeVar("Kept")
_planners, _begun, _plans = OrderedDict[Any, Planner](), OrderedDict[Any, PlanBuilder](), OrderedDict[Any, Plan]()


def _latest(kept: OrderedDict[Any, Kept], most: int, key: Any, make: Callable[[], Kept]) -> Kept:
    """The value of a key among the latest ones, made where it is not kept."""
    kept[key] = kept.pop(key) if key in kept else make()
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]


def begun(state: State, files: Mapping[str, str]) -> PlanBuilder:
    """The search of a state; `files` gives the path of each upload. Raises InputError as `moelab plan` does."""

    def begin() -> PlanBuilder:
        request = plan_request(state.options(dict(files)))

        def planner() -> Planner:
            return Planner(request.laws, request.space, extrapolate=request.extrapolate)

        return _latest(_planners, PLANNERS, state.planner, planner).begin(request.budget, top=request.top)

    return _latest(_begun, BEGUN, _key(state, files), begin)


def made_plan(state: State, files: Mapping[str, str]) -> Plan:
    """The plan of a state with all its evidence; its search is then forgotten. Raises InputError as `begun` does."""
    key = _key(state, files)

    def make() -> Plan:
        plan = begun(state, files).plan()
        del _begun[key]
        return plan

    return _latest(_plans, PLANS, key, make)


def _key(state: State, files: Mapping[str, str]) -> Any:
    return (state.query, *files.items())


def answer(state: State, files: Mapping[str, str]) -> Answer:
    """What people wait for: the sentences with their doubt, why, and the designs, without what follows from them."""
    try:
        plan = _plans.get(_key(state, files)) or begun(state, files).first
        page = worded_page(answer_page(plan, state.command))
    except MoelabError as error:
        return refused(error)
    return _rendered("sections", page, page.sections, "section")


def evidence(state: State, files: Mapping[str, str]) -> Answer:
    """All that follows the answer, but what would change it; its `lead` is the answer's, now complete."""
    try:
        plan = made_plan(state, files)
        page = worded_page(answer_page(plan, state.command))
        sections = worded_sections(evidence_sections(plan))
    except MoelabError as error:
        return refused(error)
    return _rendered("evidence", page, sections, "evidence")


def changes(state: State, files: Mapping[str, str]) -> Answer | None:
    """The section on what changes the answer, which takes longest. It is computed a row at a time: None where another
    call is needed."""
    try:
        plan = made_plan(state, files)
        deferred = plan.deferred_what_if
        with freed_memory_kept():
            if isinstance(deferred, WhatIf) and deferred.advance():
                return None
        section = changes_section(plan)
    except MoelabError as error:
        return refused(error)
    return rendered_sections(worded_sections([section]), "changes")


def download(state: State, files: Mapping[str, str], name: str) -> bytes:
    """One of `DOWNLOADS`. Raises InputError where the design has no such file."""
    from moelab.export.plan_files import write_plan

    plan = made_plan(state, files)
    folder = Path(tempfile.mkdtemp(prefix="moelab-"))
    try:
        if name == "plan.html":
            return write_page(worded_page(plan_page(plan, state.command)), folder / name).read_bytes()
        written = write_plan(plan, folder)
        if name in written.left_out:
            raise InputError(f"{name}: {written.left_out[name]}")
        return (folder / name).read_bytes()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refused(error: Exception) -> Answer:
    """The message of bad input, and the first field that it names; a field that is not there marks none."""
    text = str(error)
    return Answer(error=worded(text), field="" if isinstance(error, NoSuchControl) else field_of(text))


def _rendered(name: str, page: Page, sections: Sequence[Section], prefix: str) -> Answer:
    """A part by its template, with anchors that begin with `prefix`."""
    specs = section_specs(sections)
    lead, after = lead_of(page.answer)
    shown = {
        "page": page,
        "lead": lead,
        "after": after,
        "sections": [{**part, "id": f"{prefix}-{number}"} for number, part in enumerate(numbered(sections), 1)],
        "stills": [None] * len(specs),
    }
    html, head = (templates().get_template(f"{each}.html.j2").render(shown) for each in (name, "lead"))
    return Answer(html, specs, lead=head)


def rendered_sections(sections: Sequence[Section], prefix: str) -> Answer:
    """Sections alone, with anchors that begin with `prefix`."""
    return _rendered("sections", Page("", [""]), sections, prefix)


@cache
def templates() -> Any:
    """The templates of this room and, beside them, the report's."""
    import jinja2

    loaders = [jinja2.PackageLoader(f"moelab.{room}") for room in ("app", "report")]
    return environment().overlay(loader=jinja2.ChoiceLoader(loaders))
