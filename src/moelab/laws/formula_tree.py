"""Formulas as trees: + - * / **, log, exp, min, max and names, read from text and never run as code.

The text is parsed (by Python's own grammar), every node is checked against the list of what is allowed, and the tree is
evaluated on arrays with its derivative by each coefficient carried along (forward mode).
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.laws.forms import Array, minimum
from moelab.laws.law import Values
from moelab.printable import short

MOST_CHARACTERS, MOST_NODES = 4_000, 1_000
FUNCTIONS = ("log", "exp", "min", "max")
_OPERATORS: dict[type[ast.AST], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
Slopes = dict[str, Array]
"""Derivatives by coefficient."""


@dataclass(frozen=True)
class Node:
    """A number (`value`), a name, or an operator or function over its `parts`."""

    kind: str
    value: float = 0.0
    name: str = ""
    parts: tuple["Node", ...] = ()

    def names(self) -> dict[str, None]:
        """Every name in the tree, in the order of the text."""
        if self.kind == "name":
            return {self.name: None}
        return {name: None for part in self.parts for name in part.names()}


def parse_formula(text: str) -> Node:
    """The tree of a formula. Raises InputError naming what is not allowed in it."""
    if not isinstance(text, str) or not text.strip():
        raise InputError("formula: expected a text such as E_0 + A / params_total**alpha")
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"formula: at most {MOST_CHARACTERS:,} characters, got {len(text):,}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        count = sum(1 for _ in ast.walk(tree))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"formula: not an expression: {getattr(error, 'msg', 'it is nested too deeply')}") from None
    if count > MOST_NODES:
        raise InputError(f"formula: at most {MOST_NODES:,} numbers, names and signs, got {count:,}")
    return _node(tree.body)


def _node(tree: ast.AST) -> Node:
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int | float) and not isinstance(tree.value, bool):
        return Node("number", value=float(tree.value))
    if isinstance(tree, ast.Name):
        return Node("name", name=tree.id)
    if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
        return Node(_OPERATORS[type(tree.op)], parts=(_node(tree.left), _node(tree.right)))
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.UAdd):
        inner = _node(tree.operand)
        return inner if isinstance(tree.op, ast.UAdd) else Node("*", parts=(Node("number", value=-1.0), inner))
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.keywords:
        name, parts = tree.func.id, tuple(_node(part) for part in tree.args)
        wanted = 1 if name in ("log", "exp") else 2
        if name in FUNCTIONS and len(parts) == wanted:
            return Node(name, parts=parts)
        if name in FUNCTIONS:
            raise InputError(f"formula: {name} takes {wanted} values, got {len(parts)}")
        raise InputError(f"formula: no function {name!r}; allowed: {', '.join(FUNCTIONS)}")
    if isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.BitXor):
        raise InputError(f"formula: a power is **, not ^, in {short(ast.unparse(tree))}")
    allowed = f"numbers, names, + - * / **, {', '.join(FUNCTIONS)}"
    raise InputError(f"formula: {short(ast.unparse(tree))} is not allowed; a formula has {allowed}")


def evaluate(node: Node, values: Values, coefficients: frozenset[str]) -> tuple[Array, Slopes]:
    """The value at `values` (arrays by name, which broadcast) and its derivative by each of `coefficients` that it has.

    Without `coefficients` it takes the time of the value alone.
    """
    if node.kind == "number":
        return np.asarray(node.value), {}
    if node.kind == "name":
        value = np.asarray(values[node.name])
        value = value if value.dtype.kind in "fc" else value * 1.0
        return value, {node.name: np.ones_like(value)} if node.name in coefficients else {}
    (a, da), *rest = [evaluate(part, values, coefficients) for part in node.parts]
    if node.kind == "log":
        return np.log(a), {name: slope / a for name, slope in da.items()}
    if node.kind == "exp":
        value = np.exp(a)
        return value, {name: value * slope for name, slope in da.items()}
    ((b, db),) = rest
    if node.kind in ("min", "max"):
        value = minimum(a, b) if node.kind == "min" else -minimum(-a, -b)
        left = np.real(a) < np.real(b) if node.kind == "min" else np.real(a) > np.real(b)
        return value, _joined(da, db, np.where(left, 1.0, 0.0), np.where(left, 0.0, 1.0))
    return (_BINARY[node.kind] if da or db else _PLAIN[node.kind])(a, b, da, db)


def _joined(da: Slopes, db: Slopes, by_a: Any, by_b: Any) -> Slopes:
    found = {name: by_a * slope for name, slope in da.items()}
    for name, slope in db.items():
        found[name] = found[name] + by_b * slope if name in found else by_b * slope
    return found


def _power(a: Array, b: Array, da: Slopes, db: Slopes) -> tuple[Array, Slopes]:
    value = a**b
    by_a = b * a ** (b - 1) if da else 0.0
    by_b = value * np.log(a) if db else 0.0
    return value, _joined(da, db, by_a, by_b)


_BINARY: Mapping[str, Callable[[Array, Array, Slopes, Slopes], tuple[Array, Slopes]]] = {
    "+": lambda a, b, da, db: (a + b, _joined(da, db, 1.0, 1.0)),
    "-": lambda a, b, da, db: (a - b, _joined(da, db, 1.0, -1.0)),
    "*": lambda a, b, da, db: (a * b, _joined(da, db, b, a)),
    "/": lambda a, b, da, db: (a / b, _joined(da, db, 1 / b, -a / b**2)),
    "**": _power,
}
_PLAIN: Mapping[str, Callable[[Array, Array, Slopes, Slopes], tuple[Array, Slopes]]] = {
    "+": lambda a, b, *_: (a + b, {}),
    "-": lambda a, b, *_: (a - b, {}),
    "*": lambda a, b, *_: (a * b, {}),
    "/": lambda a, b, *_: (a / b, {}),
    "**": lambda a, b, *_: (a**b, {}),
}
"""Of parts that no coefficient is in."""


def linear_names(node: Node, names: list[str]) -> list[str]:
    """Those of the names in which the tree is linear jointly, taken greedily from the first."""
    kept: list[str] = []
    for name in names:
        if _affine(node, {*kept, name}):
            kept.append(name)
    return kept


def _affine(node: Node, names: set[str]) -> bool:
    if not names & set(node.names()):
        return True
    if node.kind == "name":
        return True
    a, *rest = node.parts
    if node.kind in ("+", "-"):
        return _affine(a, names) and _affine(rest[0], names)
    free = [not names & set(part.names()) for part in node.parts]
    if node.kind == "*":
        return (free[0] and _affine(rest[0], names)) or (free[1] and _affine(a, names))
    return node.kind == "/" and free[1] and _affine(a, names)
