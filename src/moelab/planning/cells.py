"""Rows of a plan's tables as text: what-ifs, released models, their learning rates."""

from collections.abc import Sequence

from moelab.planning.nearest import apart_from_released
from moelab.planning.rates import Rate
from moelab.quantities import format_dollars, format_number, format_outside


def what_if_cells(row: dict[str, object]) -> tuple[str, ...]:
    """A what-if as the cells of a table: change, active / total, experts, tokens, extra nats, cost.

    The same design has its extra nats too, since its data or what repeated tokens are worth may change its loss.
    """
    if "why_not" in row:
        return str(row["change"]), "-", "-", "-", "-", str(row["why_not"])
    cost = _interval(row, "cost") if "cost" in row else ""
    if not row["changes"]:
        return str(row["change"]), "same design", "", "", "" if row.get("extra_nats") is None else _nats(row), cost
    size = f"{format_number(_float(row['params_active']))} / {format_number(_float(row['params_total']))}"
    nats = "-" if row.get("extra_nats") is None else _nats(row)
    return str(row["change"]), size, str(row["experts"]), format_number(_float(row["tokens"])), nats, cost


def released_cells(row: dict[str, object], shares: bool = True) -> tuple[str, ...]:
    """A released model as the cells of a table; the excess is over design 1, negative where the model is ahead.
    Without `shares` it has none, since the laws do not support one."""
    size = f"{format_number(_float(row['params_active']))} / {format_number(_float(row['params_total']))}"
    trained, price = row["trained_tokens"], row["cost_per_million_tokens"]
    covered = row["excess_compute"] is not None
    return (
        str(row["name"]),
        size,
        "-" if trained is None else format_number(_float(trained)),
        format_number(_float(row["tokens"])),
        _excess_cell(row, shares) if covered else "not covered",
        _nats(row) if covered else "-",
        "-" if price is None else _interval(row, "cost_per_million_tokens"),
    )


def _nats(row: dict[str, object]) -> str:
    """The signed loss above design 1's; 0.000 where they do not differ."""
    nats = round(_float(row["extra_nats"]), 3)
    return f"{nats:+.3f}" if nats else "0.000"


def _excess_cell(row: dict[str, object], shares: bool) -> str:
    """The excess compute, and by how many laws where some of those of design 1 do not cover the model."""
    if not shares:
        return "-"
    laws, of_laws = row["laws"], row["of_laws"]
    assert isinstance(laws, list)
    fewer = "" if len(laws) == of_laws else f" ({len(laws)} of {of_laws} laws)"
    share = round(_float(row["excess_compute"]), 2) + 0.0  # no -0 %
    return f"{share:.0%}{fewer}"


def _interval(row: dict[str, object], name: str) -> str:
    """A price with its 80 % interval where it has one."""
    ends = [row.get(f"{name}{end}") for end in ("", "_low", "_high")]
    middle, low, high = ("" if end is None else format_dollars(_float(end)) for end in ends)
    return f"{middle} [{low}, {high}]" if low and high else middle


def rule_cells(rate: Rate, params_active: float, released: Sequence[dict[str, object]]) -> tuple[str, ...]:
    """A rule's learning rate and batch as the cells of a table, marked where it is far from `released` models'."""
    far = apart_from_released(rate.learning_rate, params_active, released)
    return (
        rate.title,
        f"{rate.learning_rate:.2e}",
        "-" if rate.batch_tokens is None else format_number(rate.batch_tokens),
        f"{format_outside(rate.distance)}{far and f'; {far}'}",
    )


def rate_cells(row: dict[str, object]) -> tuple[str, ...]:
    """A released model's learning rate and batch as the cells of a table; where they stand, last."""
    batch = row["batch_tokens"]
    return (
        f"{row['name']} as released ({row['optimizer']})",
        f"{_float(row['learning_rate']):.2e}",
        "-" if batch is None else format_number(_float(batch)),
        str(row["source"]),
    )


def _float(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
