"""Designs of the front that beat the recommended one in excess and price: listed with the step that left them out."""

from dataclasses import replace

import pytest

from moelab.planning import Budget, Plan, Space
from moelab.planning.excess_words import MEANING, excess_note, order_note
from moelab.planning.not_taken import better_on_front, not_taken_sentences
from moelab.planning.plan import plan
from moelab.planning.plan_page import plan_page
from moelab.planning.why_balance import NOT_TAKEN

SPACE = Space(d_model=[1024, 1536, 2048], n_experts=[16, 64, 128])


@pytest.fixture(scope="module")
def result() -> Plan:
    """A plan by published laws, whose near-equal designs are settled by granularity and practice."""
    return plan(Budget.parse({"flops": 1e20, "max_params": 5e9, "serving": {"hardware": "h100"}}, "plan"), None, SPACE)


def size(design: object) -> float:
    return design.serving["cost_per_million_tokens"]  # type: ignore[attr-defined, no-any-return]


def test_each_better_design_of_the_front_is_listed_once_with_its_reason(result: Plan) -> None:
    best = result.best
    # The front may hold no such design here, so one is made of the second row.
    better = replace(
        result.candidates[1], regret_compute=replace(best.regret_compute, value=-0.01), serving=best.serving
    )
    changed = replace(result, pareto=[*result.pareto, better])
    found = better_on_front(changed)
    listed = [design for designs in found.values() for design in designs]
    expected = [
        design for design in changed.pareto
        if design.regret_compute.value < best.regret_compute.value and size(design) <= size(best)
    ]  # fmt: skip
    assert len(listed) == len(expected) >= 1
    assert all(any(design is other for other in listed) for design in expected)
    assert set(found) <= set(NOT_TAKEN)
    for reason, designs in found.items():
        for design in designs:
            left = [step["by"] for step in result.settled_by if design.experts not in step["experts"]]
            assert reason == ("kind" if design.is_moe != best.is_moe else left[0] if left else "shape")
    sentences = not_taken_sentences(changed)
    assert len(sentences) == len(found)
    assert better.label in " ".join(sentences)
    section = next(part for part in plan_page(changed, "", changes=False).sections if part.title == "Loss against size")
    assert list(section.text) == sentences


def test_nothing_is_listed_where_none_is_better(result: Plan) -> None:
    assert not_taken_sentences(replace(result, pareto=[result.best])) == []


def test_every_table_with_an_excess_defines_it(result: Plan) -> None:
    page = plan_page(result, "", changes=False)
    for title in ("Designs", "Law by law"):
        (table,) = next(part for part in page.sections if part.title == title).tables
        assert MEANING in table.caption
    assert excess_note(result) in next(part for part in page.sections if part.title == "Designs").tables[0].caption
    assert "need not rise" in order_note(result)


def test_the_columns_that_decide_come_first(result: Plan) -> None:
    (table,) = next(part for part in plan_page(result, "", changes=False).sections if part.title == "Designs").tables
    assert list(table.columns)[:6] == ["rank", "active/total", "experts", "tokens", "excess", "$/M tokens"]
    columns, rows = result.table()
    at = list(table.columns).index("layers x width")
    assert [row[at] for row in table.rows] == [row[columns.index("layers")] for row in rows]
