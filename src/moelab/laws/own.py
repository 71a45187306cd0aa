"""Laws of one's own: from a YAML file with a formula, from a Python file with `LAW`, or registered from Python."""

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moelab.errors import InputError
from moelab.laws.catalogue import add_law
from moelab.laws.forms import Array
from moelab.laws.law import Formula, Law, Values
from moelab.laws.law_keys import law_from_formula
from moelab.yaml_reader import parse_yaml


def register_law(law: Law | Mapping[str, Any] | str | Path) -> Law:
    """Make a law of one's own known by its id, everywhere that takes a law's id.

    Args:
        law: A Law, what a law file holds (id, formula, variables, starts, ...), or the path of one (.yaml or .py). A
            formula may be a function of coefficients and variables, beside the list of its `coefficients`.

    Raises InputError for a file that is wrong and for the id of a published law.

    >>> import moelab
    >>> formula = "E_0 + A / params_total**alpha + B / tokens**beta"
    >>> own = {"id": "mine2026", "formula": formula, "variables": ["params_total", "tokens"]}
    >>> moelab.register_law({**own, "starts": {"alpha": [0.05, 1], "beta": [0.05, 1]}}).linear
    ('E_0', 'A', 'B')
    """
    if isinstance(law, str | Path):
        return register_law(load_law(law))
    return add_law(law if isinstance(law, Law) else law_from_formula(law))


def load_law(path: str | Path) -> Law:
    """The law of a file: .yaml holds a formula, .py is run and holds `LAW`. Raises InputError naming the file."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"law-file: no such file: {path}")
    if path.suffix == ".py":
        return _python_law(path)
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"law-file: expected a .yaml or .py file, got {path.name!r}")
    try:
        return law_from_formula(parse_yaml(path.read_text(encoding="utf-8"), str(path)))
    except InputError as error:
        raise InputError(f"law-file {path}: {str(error).removeprefix(f'{path}: ')}") from None


def _python_law(path: Path) -> Law:
    spec = importlib.util.spec_from_file_location(f"moelab_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"law-file {path}: {type(error).__name__}: {error}") from None
    law = getattr(module, "LAW", None)
    kept: dict[str, Any] = {}
    if isinstance(law, Mapping):
        try:
            law = law_from_formula(law)
        except InputError as error:
            raise InputError(f"law-file {path}: {error}") from None
        except Exception as error:
            raise InputError(f"law-file {path}: formula: {type(error).__name__}: {error}") from None
        kept = dict(law.definition or {})
    if not isinstance(law, Law):
        raise InputError(f"law-file {path}: holds no LAW, the keys of a law file or a moelab.laws.Law")
    definition = {**kept, "path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return replace(law, formula=_named(law.formula, path), definition=definition)


def _named(formula: Formula, path: Path) -> Formula:
    """The formula, whose errors name the file that it stands in."""

    def named(c: Values, v: Values) -> tuple[Array, Any]:
        try:
            value, gradient = formula(c, v)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"law-file {path}: formula: {type(error).__name__}: {error}") from None

        def derivatives() -> dict[str, Array]:
            try:
                return gradient()
            except Exception as error:
                raise InputError(f"law-file {path}: gradient: {type(error).__name__}: {error}") from None

        return value, derivatives

    return named
