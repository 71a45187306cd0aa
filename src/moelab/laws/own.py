"""Laws of one's own: from a YAML file with a formula, from a Python file with `LAW`, or registered from Python."""

import hashlib
import importlib.util
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.laws.catalogue import add_law
from moelab.laws.design import Design, Refusal
from moelab.laws.forms import Array
from moelab.laws.formula_tree import FUNCTIONS, Node, evaluate, linear_names, parse_formula
from moelab.laws.function_law import linear_in, listed_coefficients, with_gradient
from moelab.laws.law import Converter, Formula, Law, Values
from moelab.yaml_reader import parse_yaml

FIELDS = (
    "id", "formula", "variables", "bounds", "starts", "range", "title", "positive", "published", "meaning", "covers",
    "coefficients",
)  # fmt: skip
"""Keys of a law file; the first three are needed, and a start for each coefficient that enters nonlinearly. A formula
that is a Python function needs its `coefficients`, too."""
COVERS = {"dense": (True, False), "moe": (False, True), "both": (True, True)}
"""What `covers` may be, and whether the law then describes dense and MoE models."""
_COUNTED: dict[str, Callable[[Design], Any]] = {
    "params_non_embedding": lambda d: d.params_without_router,
    "params_active_non_embedding": lambda d: d.params_active_without_router,
    "activation_rate": lambda d: d.count.params_active_non_embedding / np.asarray(d.count.params_non_embedding, float),
    "expert_activation": lambda d: 1 / d.expert_ratio,
    "active_experts": lambda d: d.top_k + d.n_shared,
    "n_shared_experts": lambda d: d.n_shared,
    "shared_share": lambda d: d.n_shared / (d.top_k + d.n_shared),
    "epochs": lambda d: d.tokens / d.unique_tokens,
    "flops_per_token": lambda d: d.train_flops / d.tokens,
    "d_model": lambda d: np.asarray(d.shape.d_model, float),
    "n_layers": lambda d: np.asarray(d.shape.n_layers, float),
}
"""What a table's columns are of a design, beside its own properties; as `columns.RULES` derives them from a table."""
_ASSUMED = "assumed"
"""In the definition of a law of Python that does not state the kinds of models it covers."""
_SIZES = ("params_total", "params_active", "params_non_embedding", "params_active_non_embedding", "params_dense")


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
        convert=_converter(variables),
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
        definition=dict(given) if tree is not None else {} if "covers" in given else {"kinds": _ASSUMED},
    )
    if _assumes_dense(law):  # its published coefficients: `as_fitted` looks at the runs of a fit
        return replace(law, convert=_dense_only(law.convert, "its coefficients may be of dense models", True))
    return law


def _of_tree(tree: Node, coefficients: tuple[str, ...]) -> Formula:
    fitted = frozenset(coefficients)

    def formula(c: Values, v: Values) -> tuple[Array, Any]:
        value, slopes = evaluate(tree, {**v, **c}, fitted)
        return value, lambda: {name: slopes.get(name, np.zeros_like(value)) for name in coefficients}

    return formula


def as_fitted(law: Law, kinds: Collection[str]) -> Law:
    """The law as the kinds of the runs that it was fitted to (dense, moe) allow.

    A formula without a variable that separates MoE from dense, fitted to dense runs, would predict for a MoE model
    what a dense one of its size has: it covers dense models only, unless its `covers` states otherwise.
    """
    if not _assumes_dense(law) or "moe" in kinds:
        return law
    return replace(law, covers_moe=False, convert=_dense_only(law.convert, "none of its runs was a MoE model", False))


def _assumes_dense(law: Law) -> bool:
    """Whether nothing states or shows that a formula of one's own describes MoE models."""
    definition = law.definition or {}
    unstated = "covers" not in definition if "formula" in definition else definition.get("kinds") == _ASSUMED
    return unstated and law.covers_moe and not law.separates_moe


def _dense_only(convert: Converter, why: str, published_only: bool) -> Converter:
    """A converter that refuses MoE models, too."""
    reason = (
        f"no variable of this law separates MoE from dense, and {why}; 'covers: both' in its file applies it to MoE"
    )

    def converter(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
        found, refusals = convert(design)
        return found, [*refusals, Refusal(reason, ~design.dense, published_only)]

    return converter


def _pairs(given: Any, key: str) -> dict[str, tuple[float, float]]:
    try:
        pairs = {str(name): (float(low), float(high)) for name, (low, high) in given.items()}
    except (TypeError, ValueError, AttributeError):
        raise InputError(f"{key}: expected NAME: [low, high] for each") from None
    for name, (low, high) in pairs.items():
        if not low < high:
            raise InputError(f"{key}: {name}: expected low below high, got [{low:g}, {high:g}]")
    return pairs


def _converter(variables: tuple[str, ...]) -> Any:
    def convert(design: Design) -> tuple[dict[str, Array], list[Refusal]]:
        found: dict[str, Array] = {}
        refusals = []
        for name in variables:
            value = _COUNTED[name](design) if name in _COUNTED else getattr(design, name, None)
            found[name] = np.full(np.shape(design.tokens), np.nan) if value is None else value
            if value is None:
                refusals.append(Refusal(f"a design has no {name}; give the law's variables by --set", np.array(True)))
        return found, refusals

    return convert


def _at_compute(variables: tuple[str, ...], size: str) -> Any:
    def at_compute(params: Array, flops: float, settings: Values) -> dict[str, Array]:
        others = [name for name in variables if name not in (size, "tokens")]
        missing = [name for name in others if name not in settings]
        if missing:
            raise InputError(f"set: give {', '.join(missing)} by --set {missing[0]}=...")
        return {size: params, "tokens": flops / (6 * params), **{name: settings[name] + 0 * params for name in others}}

    return at_compute
