"""What a user's fits bring to a plan: the designs that they exclude, near the recommendation, and what they owe."""

from typing import Any

import numpy as np
import pytest

import moelab
from moelab.fitting import FittedLaw
from moelab.planning import Budget, Space
from moelab.planning.lattice import enumerate_designs
from moelab.planning.next_runs import next_runs
from moelab.planning.phrases import paragraphs
from moelab.planning.plan import plan
from moelab.planning.plan_page import plan_page

LAW = "moelab2026"
BUDGET = Budget(flops=2e13)
OWED = "coefficients come mostly from the prior 'moelab2026, public runs and published laws'"


def fit_of(law: str, keep: Any, made_up: Any, space: Space, **options: Any) -> FittedLaw:
    """A fit to those of the made-up runs that are kept."""
    runs = {name: np.asarray(values, float) for name, values in made_up(space, n=200).items()}
    rows = np.flatnonzero(keep(runs))[:14]
    return moelab.fit({name: values[rows] for name, values in runs.items()}, law, **options)


@pytest.fixture(scope="module")
def dense(tiny: Space, made_up: Any) -> FittedLaw:
    return fit_of(LAW, lambda runs: runs["n_experts"] == 1, made_up, tiny, bootstrap=12)


@pytest.fixture(scope="module")
def single(tiny: Space, made_up: Any) -> FittedLaw:
    return fit_of(LAW, lambda runs: np.isclose(runs["expert_ratio"], 4), made_up, tiny, bootstrap=12)


def test_a_plan_by_dense_runs_says_so_beside_its_recommendation(dense: FittedLaw, tiny: Space) -> None:
    found = plan(BUDGET, [dense], tiny)
    line = "only dense designs are ranked: the fitted runs are all dense (--extrapolate ranks MoE, too)"
    assert not found.best.is_moe
    assert line in found.warnings
    assert line in found.to_dict()["warnings"]
    parts = paragraphs(found.sentence)
    at = next(i for i, part in enumerate(parts) if part.startswith("Train "))
    assert parts[at + 1].startswith(f"O{line[1:]}. Training takes")
    page = plan_page(found, "again", changes=False)
    assert any(line[1:] in part for part in page.answer)
    assert sum(OWED in warning for warning in found.warnings) == 1
    assert any(OWED in warning for section in page.sections for warning in section.warnings)
    assert not any("what experts are worth" in warning for warning in found.warnings)


def test_extrapolated_moe_designs_are_named_as_the_priors(dense: FittedLaw, tiny: Space) -> None:
    found = plan(BUDGET, [dense], tiny, extrapolate=True)
    assert "MoE designs are ranked by --extrapolate alone: the fitted runs are all dense" in found.warnings
    assert sum("among them all 8 that state what experts are worth" in warning for warning in found.warnings) == 1
    with pytest.raises(moelab.InputError, match="expert_ratio outside the fitted range 1 to 1"):
        plan(BUDGET, [dense], tiny.replace(kinds=["moe"]))
    only_dense = plan(BUDGET, [dense], tiny.replace(kinds=["dense"]))
    assert only_dense.ranked_note == ""


def test_a_plan_by_moe_runs_alone_ranks_no_dense_design(tiny: Space, made_up: Any, single: FittedLaw) -> None:
    moe = fit_of("ludziejewski2025", lambda runs: runs["n_experts"] > 1, made_up, tiny, bootstrap=0, starts=2)
    found = plan(BUDGET, [moe], tiny)
    assert found.best.is_moe
    assert found.ranked_note == "only MoE designs are ranked: no fitted run is dense (--extrapolate ranks dense, too)"
    assert not any("prior" in warning for warning in found.warnings)
    found = plan(BUDGET, [single], tiny)
    note = found.ranked_note
    assert note.startswith("only MoE designs of expert_ratio 4")
    assert note.endswith("are ranked: the fitted runs have no others (--extrapolate ranks others, too)")
    beyond = plan(BUDGET, [single], tiny, extrapolate=True)
    assert beyond.ranked_note == "dense designs are ranked by --extrapolate alone: no fitted run is dense"


def test_a_single_granularity_is_named(tiny: Space, made_up: Any) -> None:
    fitted = fit_of(LAW, lambda runs: (runs["n_experts"] == 1) | (runs["granularity"] == 1), made_up, tiny, bootstrap=0)
    assert fitted.ranges["granularity"] == (1.0, 1.0)
    assert plan(BUDGET, [fitted], tiny).ranked_note.startswith("only designs of granularity 1")


def test_laws_that_describe_one_kind_are_named_as_before(tiny: Space) -> None:
    assert plan(Budget(flops=1e15), ["hoffmann2022"], tiny).ranked_note == (
        "no law of the ensemble covers MoE models: only dense designs are ranked"
    )
    assert plan(Budget(flops=1e15), ["ludziejewski2025"], tiny, extrapolate=True).ranked_note == ""


def test_a_limit_that_leaves_one_kind_is_no_lack_of_laws(fits: list[FittedLaw], tiny: Space) -> None:
    lattice = enumerate_designs(tiny)
    least = float(lattice.params_total[lattice.is_moe].min())
    found = plan(Budget(flops=2e13, max_params=least - 1), fits, tiny)
    assert not found.best.is_moe
    assert "no MoE design fits the limits" in found.warnings
    assert found.ranked_note == ""


def test_the_next_runs_reach_beyond_dense_ones_where_asked(dense: FittedLaw, tiny: Space) -> None:
    options: dict[str, Any] = {"count": 1, "flops_each": 1e12}
    found = next_runs(BUDGET, [dense], tiny, **options)
    assert not found.runs[0].candidate.is_moe
    assert found.warnings[0].startswith("only dense designs are ranked")
    beyond = next_runs(BUDGET, [dense], tiny, **options, extrapolate=True)
    assert beyond.runs[0].candidate.is_moe
    assert beyond.warnings == ("MoE designs are ranked by --extrapolate alone: the fitted runs are all dense",)


def test_a_comparison_names_what_is_owed_and_what_a_fit_does_not_cover(dense: FittedLaw) -> None:
    found = moelab.compare("mixtral-8x7b", "llama3-8b", laws=[dense])
    assert sum(OWED in warning and "what experts" not in warning for warning in found.warnings) == 1
    assert "moelab2026 does not apply to mixtral-8x7b: expert_ratio outside the fitted range 1 to 1" in found.warnings
    found = moelab.compare("mixtral-8x7b", "llama3-8b", laws=[dense], extrapolate=True)
    assert any("that state what experts are worth" in warning for warning in found.warnings)


def test_a_dense_law_fitted_to_moe_runs_is_warned_of(made_up: Any, tiny: Space) -> None:
    """As for units, the plan repeats what the fit says: this law reads none of its runs' experts."""
    fitted = fit_of("hoffmann2022", lambda runs: runs["tokens"] > 0, made_up, tiny, bootstrap=0, starts=4)
    moe = fitted.kinds.count("moe")
    assert 0 < moe < 14
    line = f"{moe} of 14 runs are MoE; hoffmann2022 describes dense models: their params_total is read as"
    assert sum(line in warning for warning in plan(BUDGET, [fitted], tiny).warnings) == 1
