"""What Pydantic complains of in a configuration, as one line that names the fields and what is allowed."""

import difflib
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from moelab.printable import cut, short

SHOWN = 4
"""Wrong fields that one error explains; of the others it gives the names."""
MOST_LISTED = 12
"""A config of at most so many fields lists them where an unknown key resembles none."""


def one_line(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """Pydantic's complaints as one line: unknown keys first, since they often explain what is then missing."""
    problems = error.errors(include_url=False)
    absent = [_field(problem) for problem in problems if problem["type"] == "missing"]
    wrong = _alternatives_joined([problem for problem in problems if problem["type"] != "missing"], model)
    wrong.sort(key=lambda problem: problem["type"] != "extra_forbidden")
    complaints = [_complaint(problem, model) for problem in wrong[:SHOWN]]
    if len(wrong) > SHOWN:
        complaints.append(f"also wrong: {', '.join(dict.fromkeys(_field(problem) for problem in wrong[SHOWN:]))}")
    if absent:
        complaints.append(f"{', '.join(absent)}: {'is' if len(absent) == 1 else 'are'} required")
    return f"{where + ': ' if where else ''}{'; '.join(complaints)}"


def _alternatives_joined(problems: list[ErrorDetails], model: type[BaseModel]) -> list[ErrorDetails]:
    """One complaint of a field that takes numbers or a word, where Pydantic has one of each, with names of its own."""
    found: dict[tuple[int | str, ...], ErrorDetails] = {}
    others = []
    for problem in problems:
        where = _field_with_words(problem["loc"], model)
        if where is None:
            others.append(problem)
        elif where not in found:
            found[where] = {**problem, "loc": where}
        else:
            allowed = problem.get("ctx", {}).get("expected", problem["msg"])
            message, got, value = found[where]["msg"].partition(", got ")
            found[where] = {**found[where], "msg": f"{message}, or {allowed}{got}{value}"}
    return [*others, *found.values()]


def _field_with_words(where: tuple[int | str, ...], model: type[BaseModel]) -> tuple[int | str, ...] | None:
    """The part of `where` that names a field of numbers or words (`Count | Literal["auto"]`), if there is one."""
    for number, part in enumerate(where[:-1]):
        field = (_fields_at(model, where[:number]) or {}).get(str(part))
        if field is not None and any(get_origin(kind) is Literal for kind in get_args(field.annotation)):
            return where[: number + 1]
    return None


def _complaint(problem: ErrorDetails, model: type[BaseModel]) -> str:
    """One wrong field and what is allowed; a validator of the whole config names its fields itself."""
    field, message, where = _field(problem), problem["msg"].removeprefix("Value error, "), problem["loc"]
    if problem["type"] == "extra_forbidden":
        message = _unknown_key(str(where[-1]), model, where[:-1])
    elif problem["type"] == "model_type":
        keys = _listed(_fields_at(model, where) or {})
        message = f"expected keys and values{keys and f' ({keys})'}, got {short(problem['input'])}"
    elif problem["type"] not in ("value_error", "assertion_error"):
        message = f"{message[0].lower()}{message[1:]}, got {short(problem['input'])}"
    return f"{field + ': ' if field else ''}{message}"


def _field(problem: ErrorDetails) -> str:
    return ".".join(cut(str(part)) for part in problem["loc"])


def _unknown_key(key: str, model: type[BaseModel], parents: tuple[int | str, ...]) -> str:
    fields = _fields_at(model, parents)
    if fields is None:
        return "unknown key"
    near = difflib.get_close_matches(key, list(fields), n=1)
    if near:
        return f"unknown key; did you mean {near[0]!r}?"
    listed = _listed(fields)
    return f"unknown key; allowed: {listed}" if listed else "unknown key"


def _listed(fields: dict[str, Any]) -> str:
    """Their names, where there are not many."""
    return ", ".join(fields) if len(fields) <= MOST_LISTED else ""


def _fields_at(model: type[BaseModel], parents: tuple[int | str, ...]) -> dict[str, Any] | None:
    """The fields of the configuration that stands there; None where none does."""
    fields: dict[str, Any] = dict(model.model_fields)
    for part in parents:
        inner = _config_in(fields[str(part)].annotation) if str(part) in fields else None
        if inner is None:
            return None
        fields = dict(inner.model_fields)
    return fields


def _config_in(annotation: Any) -> type[BaseModel] | None:
    """The configuration class inside an annotation such as `MoEConfig | None`."""
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
