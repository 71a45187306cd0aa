"""Messages in the page's own words: where they name an option of the command line, the page names its field."""

import re
from collections.abc import Sequence
from dataclasses import replace

from moelab.app.controls import controls
from moelab.report.page import Page, Section

_OPTION = re.compile(r"`?--([a-z]+(?:-[a-z]+)*)`?(?: NAME)?")
_BEGIN = re.compile(r"^(?:plan: )?([a-z]+(?:[_-][a-z]+)*)(?=[ :])")
_INSIDE = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")


def worded(text: str) -> str:
    """The text with each option, and each field of a budget that it names, as the label of its field.

    An option without a field on the page is marked as one of the command line.
    """
    text = _OPTION.sub(_option, text)
    text = _BEGIN.sub(lambda match: _label(match[1]) or match[1], text)
    return _INSIDE.sub(lambda match: _label(match[0]) or match[0], text)


def _option(match: re.Match[str]) -> str:
    return _label(match[1]) or f"`--{match[1]}` of the command line"


def _label(name: str) -> str | None:
    control = controls().get(name.replace("_", "-"))
    return None if control is None else f"“{control.label}”"


def worded_page(page: Page) -> Page:
    """A page whose sentences name fields of the planner page."""
    return replace(page, answer=[worded(text) for text in page.answer], sections=worded_sections(page.sections))


def worded_sections(sections: Sequence[Section]) -> list[Section]:
    """The same for sections: their text and warnings."""
    return [
        replace(part, text=[worded(text) for text in part.text], warnings=[worded(line) for line in part.warnings])
        for part in sections
    ]
