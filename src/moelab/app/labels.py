"""Messages in the page's own words: where they name an option or a field of the command line, the page names its field.

Parallel layouts are written out. The reports of plans take the same words.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from moelab.app.controls import controls
from moelab.report.page import Page, Section

NESTED = {"traffic.gpus": "serve-gpus", "serving.tokens": "serve-tokens"}
"""Fields of a budget by their path, where the last name of the path is not the field of the page."""
PARALLEL = {"tp": "tensor", "pp": "pipeline", "cp": "context", "ep": "expert", "dp": "data"}
"""Kinds of parallelism by their names in a layout."""
_OPTION = re.compile(r"`?--([a-z]+(?:-[a-z]+)*)`?(?: NAME)?")
_PATH = re.compile(r"(?:plan: )?\b((?:serving|space)(?:\.[a-z_]+)+)(?=[ :])")
_NAMED = re.compile(r"(^|: |; )(?:plan: )?([a-z]+(?:[_-][a-z]+)*)(?=:| \$?\d)")
_INSIDE = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
_DEVICES = re.compile(r"\bgpus\b(,| and|\)|$)(?: days\b)?")
_MISSING = re.compile(r"\bmissing: days\b")
_LAYOUT = re.compile(r"( with)? ?\b((?:(?:tp|pp|cp|ep|dp|vp|zero)=\d+,?)+)(?<!,)")
_TWICE = re.compile(r"(`--[a-z-]+`) of the command line (or|and) (?=`--[a-z-]+` of the command line)")
_BOUNDS = (
    ("input should be greater than or equal to", "must be at least"), ("input should be greater than", "must be above"),
    ("input should be less than or equal to", "must be at most"), ("input should be less than", "must be below"),
)  # fmt: skip


def worded(text: str) -> str:
    """The text with each option, and each field of a budget that it names, as the label of its field.

    An option without a field on the page is marked as one of the command line.
    """
    text = _PATH.sub(lambda match: _label(_last(match[1])) or match[0], text)
    text = _TWICE.sub(r"\1 \2 ", _OPTION.sub(_option, text))
    text = _NAMED.sub(lambda match: match[1] + (_label(match[2]) or match[2]), text)
    text = _INSIDE.sub(lambda match: _label(match[0]) or match[0], text)
    text = _MISSING.sub(f"missing: {_label('days')}", _DEVICES.sub(_devices, text))
    for ours, plain in _BOUNDS:
        text = text.replace(ours, plain)
    return _LAYOUT.sub(_parallel, text)


def field_of(text: str) -> str:
    """The first field of the page that a message of bad input names, as a name; empty where it names none."""
    return next((name for name in _names(text) if name in controls()), "")


def _names(text: str) -> Iterator[str]:
    found = [(match.start(), _last(match[1])) for match in _PATH.finditer(text)]
    found += [(match.start(), match[1]) for match in _OPTION.finditer(text)]
    found += [(match.start(), match[2]) for match in _NAMED.finditer(text)]
    found += [(match.start(), match[0]) for match in _INSIDE.finditer(text)]
    for _, name in sorted(found):
        yield name.replace("_", "-")


def _last(path: str) -> str:
    """The field that a path such as serving.traffic.ttft names."""
    return next((name for end, name in NESTED.items() if path.endswith(end)), path.rpartition(".")[2])


def _option(match: re.Match[str]) -> str:
    return _label(match[1]) or f"`--{match[1]}` of the command line"


def _devices(match: re.Match[str]) -> str:
    days = f" {_label('days')}" if match[0].endswith("days") else ""
    return f"{_label('gpus')}{match[1]}{days}"


def _parallel(match: re.Match[str]) -> str:
    """A layout such as tp=2,pp=4,dp=8,vp=2,zero=1 in words."""
    sizes = dict(part.split("=") for part in match[2].split(","))
    parts = [f"{word} {sizes[name]}" for name, word in PARALLEL.items() if name in sizes]
    parts += [f"{sizes['vp']} pieces in each pipeline stage"] if "vp" in sizes else []
    parts += [f"ZeRO stage {sizes['zero']}"] if "zero" in sizes else []
    text = f"parallelism: {', '.join(parts)}"
    return f" ({text})" if match[1] else f"{' ' * match[0].startswith(' ')}{text}"


def _label(name: str) -> str | None:
    control = controls().get(name.replace("_", "-"))
    return None if control is None else f"“{control.label}”"


def worded_page(page: Page) -> Page:
    """A page whose sentences name fields of the planner page."""
    return replace(page, answer=[worded(text) for text in page.answer], sections=worded_sections(page.sections))


def worded_sections(sections: Sequence[Section], words: Callable[[str], str] = worded) -> list[Section]:
    """The same for sections: their text, warnings, captions and cells. The fit page gives its own `words`."""
    return [
        replace(
            part,
            text=[words(text) for text in part.text],
            warnings=[words(line) for line in part.warnings],
            figures=[figure._replace(caption=words(figure.caption)) for figure in part.figures],
            tables=[
                table._replace(
                    caption=words(table.caption),
                    rows=[[words(cell) if type(cell) is str else cell for cell in row] for row in table.rows],
                )
                for table in part.tables
            ],
        )
        for part in sections
    ]
