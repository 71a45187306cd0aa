"""The state of the planner page: its address, the options of a plan and the command that gives the same answer."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from moelab.app.controls import Control, controls
from moelab.errors import InputError

LONGEST = 40
"""Characters of a value: the longest preset's name has fewer."""
LONGEST_SHOWN = 100
"""Characters that the form shows of a value that is refused."""
UPLOAD = re.compile(r"upload:([0-9a-f]{64})")
"""A fit file of the visitor's own, by its SHA-256."""
EXAMPLE = {"flops": "1e21", "max-params": "10B", "unique-tokens": "300B", "hardware": "h100", "tpot": "50ms"}
"""What the page answers before anything is set: the example of the README."""
FLAGS = ("extrapolate",)
ONCE = ("law", "near", "kinds", "seq-len", "extrapolate")
"""Fields that a planner is made for; all others are its budget's."""


class NoSuchControl(InputError):
    """An address with a field that the page has not."""


@dataclass(frozen=True)
class State:
    """Values by the names of their fields, in the order of the page; a field with several values has a tuple."""

    values: Mapping[str, str | tuple[str, ...]]

    def __hash__(self) -> int:
        return hash(self.query)

    @property
    def query(self) -> str:
        """The address of this state: the part after the question mark. Equal states have equal addresses."""
        return urlencode(self.values, doseq=True)

    @property
    def planner(self) -> tuple[tuple[str, Any], ...]:
        """What the planner of this state is made for: equal for states of one space and one choice of laws."""
        return tuple((name, self.values[name]) for name in ONCE if name in self.values)

    @property
    def uploads(self) -> list[str]:
        """SHA-256 of every uploaded fit that the state names."""
        found = [UPLOAD.fullmatch(law) for law in self.values.get("law", ())]
        return [match[1] for match in found if match]

    def options(self, files: Mapping[str, str]) -> dict[str, Any]:
        """The options of a plan; `files` gives the path of each upload."""
        options: dict[str, Any] = {name.replace("-", "_"): value for name, value in self.values.items()}
        if "law" in options:
            options["law"] = [files[law.removeprefix("upload:")] if ":" in law else law for law in options["law"]]
        return options | {flag: True for flag in FLAGS if flag in options}

    @property
    def command(self) -> str:
        """The command with the same answer; an upload stands as fit.json."""
        words = ["moelab", "plan"]
        for name, value in self.values.items():
            for each in value if isinstance(value, tuple) else (value,):
                words += [f"--{name}"] if name in FLAGS else [f"--{name}", "fit.json" if ":" in each else each]
        return shlex.join(words)


def read_state(pairs: Iterable[tuple[str, str]]) -> State:
    """The state of an address, from its (name, value) pairs; empty values count as absent.

    Raises InputError in one line naming the field, for an unknown field and for a value that is none of its choices:
    a page never reads the file that a value might name.
    """
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        control = controls().get(name)
        if control is None:
            raise NoSuchControl(f"{name[:LONGEST]}: no such field; known: {', '.join(controls())}")
        value = value.strip()
        if value:
            found.setdefault(name, []).append(_checked(control, value))
    for name, values in found.items():
        if len(values) > 1 and not controls()[name].several:
            raise InputError(f"{name}: expected one value, got {len(values)}")
    ordered = [(name, control) for name, control in controls().items() if name in found]
    return State(
        {name: tuple(dict.fromkeys(found[name])) if control.several else found[name][0] for name, control in ordered}
    )


def as_given(pairs: Iterable[tuple[str, str]]) -> State:
    """The values of an address for its form, those that are refused included; unknown fields are left out."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name in controls() and value.strip():
            found.setdefault(name, []).append(value.strip()[:LONGEST_SHOWN])
    ordered = [(name, control) for name, control in controls().items() if name in found]
    return State({name: tuple(found[name]) if control.several else found[name][0] for name, control in ordered})


def unknown_fields(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The names in an address that are no field of the page."""
    return list(dict.fromkeys(name[:LONGEST] for name, _ in pairs if name not in controls()))


def _checked(control: Control, value: str) -> str:
    if control.several and UPLOAD.fullmatch(value):
        return value
    if control.choices:
        if value not in control.choices:
            known = ", ".join(control.choices)
            raise InputError(f"{control.name}: expected one of {known}, got {value[:LONGEST]!r}")
        return value
    file = value.lower().endswith((".yaml", ".yml"))
    if file or len(value) > LONGEST or not re.fullmatch(r"[0-9A-Za-z.,+\-_ ]*", value):
        raise InputError(f"{control.name}: expected a number such as {control.example}, got {value[:LONGEST]!r}")
    return value
