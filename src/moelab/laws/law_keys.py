"""A law from the keys of a law file: its formula, variables, starts, bounds and range."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.laws.forms import Array
from moelab.laws.formula_tree import FUNCTIONS, Node, evaluate, linear_names, parse_formula
from moelab.laws.function_law import linear_in, listed_coefficients, with_gradient
from moelab.laws.law import Formula, Law, Values
from moelab.laws.own_designs import ASSUMED, assumes_dense, design_converter, for_dense_alone

FIELDS = (
    "id", "formula", "variables", "bounds", "starts", "range", "title", "positive", "published", "meaning", "covers",
    "coefficients",
)  # fmt: skip
"""Keys of a law file; the first three are needed, and a start for each coefficient that enters nonlinearly. A formula
that is a Python function needs its `coefficients`, too."""
COVERS = {"dense": (True, False), "moe": (False, True), "both": (True, True)}
"""What `covers` may be, and whether the law then describes dense and MoE models."""
_SIZES = ("params_total", "params_active", "params_non_embedding", "params_active_non_embedding", "params_dense")


def law_from_formula(given: Any) -> Law:
    """A law from what a law file holds. Raises InputError naming the key that is wrong."""
    if not isinstance(given, Mapping):
        raise InputError("expected keys and values (id, formula, variables, starts)")
    for key in given:
        if key not in FIELDS:
            raise InputError(f"{key}: unknown; allowed: {', '.join(FIELDS)}")
    for key in ("id", "formula", "variables"):
        if key not in given:
            raise InputError(f"{key}: is missing")
    variables = tuple(str(name) for name in given["variables"])
    own = given["formula"]
    tree = None if callable(own) else parse_formula(own)
    if tree is None:
        coefficients = listed_coefficients(given)
    elif "coefficients" in given:
        raise InputError("coefficients: a formula names its own; leave them out")
    else:
        coefficients = tuple(name for name in tree.names() if name not in variables)
        unused = [name for name in variables if name not in tree.names()]
        if unused or not coefficients:
            raise InputError(f"formula: has no {', '.join(unused)}" if unused else "formula: has no coefficient to fit")
    if clash := set(FUNCTIONS) & {*variables, *coefficients}:
        raise InputError(f"formula: {min(clash)} is a function, not a name")
    covers = str(given.get("covers", "both"))
    if covers not in COVERS:
        raise InputError(f"covers: expected one of {', '.join(COVERS)}, got {covers!r}")
    limits = {key: _pairs(given.get(key) or {}, key) for key in ("starts", "bounds", "range")}
    for key, known in (("starts", coefficients), ("bounds", coefficients), ("range", variables)):
        wrong = [name for name in limits[key] if name not in known]
        if wrong:
            raise InputError(f"{key}: {wrong[0]} is none of {', '.join(known)}")
    without = [name for name in coefficients if name not in limits["starts"]]
    if tree is None:
        formula = with_gradient(own, coefficients)
        linear = tuple(linear_in(formula, without, coefficients, variables, limits["starts"]))
    else:
        formula, linear = _of_tree(tree, coefficients), tuple(linear_names(tree, without))
    missing = [name for name in coefficients if name not in linear and name not in limits["starts"]]
    if missing:
        raise InputError(f"starts: give {', '.join(missing)} a range to start from, such as [0.05, 1]")
    lowest = {name: {**limits["starts"], **limits["bounds"]}.get(name, (0.0, 0.0))[0] for name in coefficients}
    size = next((name for name in _SIZES if name in variables), None)
    published = given.get("published")
    law = Law(
        id=str(given["id"]),
        title=str(given.get("title", "own law")),
        citation="own law",
        form="L = a function of Python" if tree is None else f"L = {own}",
        variables=variables,
        coefficients=coefficients,
        formula=formula,
        convert=design_converter(variables),
        published=None if published is None else {str(k): float(v) for k, v in published.items()},
        unpublished="a law of one's own",
        meaning={str(k): str(v) for k, v in (given.get("meaning") or {}).items()},
        flops="C = 6 N D" if size and "tokens" in variables else "",
        ranges={**dict.fromkeys(variables), **limits["range"]},
        covers_dense=COVERS[covers][0],
        covers_moe=COVERS[covers][1],
        linear=linear,
        positive=tuple(given.get("positive") or (name for name in coefficients if lowest[name] >= 0)),
        search=limits["starts"],
        bounds=limits["bounds"],
        at_compute=_at_compute(variables, size) if size and "tokens" in variables else None,
        settings=tuple(name for name in variables if name not in (size, "tokens")),
        definition=dict(given) if tree is not None else {} if "covers" in given else {"kinds": ASSUMED},
    )
    if assumes_dense(law):  # its published coefficients: `as_fitted` looks at the runs of a fit
        return replace(law, convert=for_dense_alone(law.convert, "its coefficients may be of dense models", True))
    return law


def _of_tree(tree: Node, coefficients: tuple[str, ...]) -> Formula:
    fitted = frozenset(coefficients)

    def formula(c: Values, v: Values) -> tuple[Array, Any]:
        values = {**v, **c}
        value, _ = evaluate(tree, values, frozenset())

        def gradient() -> dict[str, Array]:
            _, slopes = evaluate(tree, values, fitted)
            return {name: slopes.get(name, np.zeros_like(value)) for name in coefficients}

        return value, gradient

    return formula


def _pairs(given: Any, key: str) -> dict[str, tuple[float, float]]:
    try:
        pairs = {str(name): (float(low), float(high)) for name, (low, high) in given.items()}
    except (TypeError, ValueError, AttributeError):
        raise InputError(f"{key}: expected NAME: [low, high] for each") from None
    for name, (low, high) in pairs.items():
        if not low < high:
            raise InputError(f"{key}: {name}: expected low below high, got [{low:g}, {high:g}]")
    return pairs


def _at_compute(variables: tuple[str, ...], size: str) -> Any:
    def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
        others = [name for name in variables if name not in (size, "tokens")]
        missing = [name for name in others if name not in settings]
        if missing:
            raise InputError(f"set: give {', '.join(missing)} by --set {missing[0]}=...")
        return {size: params, "tokens": flops / (6 * params), **{name: settings[name] + 0 * params for name in others}}

    return at_compute
