"""Designs that more members of the ensemble cover come first; missing members are reported."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moelab.errors import InputError
from moelab.fitting import FittedLaw
from moelab.fitting.prediction import Holdout
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.chosen_laws import published_laws
from moelab.planning.coverage import Coverage
from moelab.planning.given_laws import predictors_of
from moelab.planning.plan import Planner, plan
from moelab.planning.warnings_ensemble import asks_dense_laws
from moelab.quantities import format_number

SPACE = Space(d_model=(512, 1024), n_layers=(16,), n_experts=(16, 512), top_k=(1, 2), n_shared_experts=(0,))


def test_a_design_covered_by_fewer_members_never_precedes_one_of_its_kind_with_more() -> None:
    nan = np.nan
    excess = np.array([[0.3, 0.1, 0.2, nan], [0.3, nan, 0.2, nan], [0.3, 0.1, nan, 0.0]])
    moe = np.array([True, True, False, True])
    coverage = Coverage.of(excess, moe)
    assert (coverage.needed, coverage.dense, coverage.moe) == (2, 2, 3)
    score = coverage.score(excess, moe)
    assert list(np.argsort(score)) == [2, 0, 1, 3]
    assert score[0] == 0.3
    assert np.isinf(score[3])
    assert coverage.score(excess[:, 2:3], moe[2:3])[0] == score[2]


def test_meaningless_predictions_are_reported_or_refused() -> None:
    with pytest.raises(InputError, match=r"flops: predictions are meaningless here: .* worse than guessing, ln"):
        plan(Budget(flops=1e12), published_laws(), Space())
    result = plan(Budget(flops=1e27), [get_law("abnar2025")], SPACE)
    assert any(
        line.startswith("predictions are meaningless here: every law of the ensemble") for line in result.warnings
    )
    fine = plan(Budget(flops=1e20), published_laws(), SPACE)
    assert not any("meaningless" in line for line in fine.warnings)


def test_the_best_design_is_covered_by_all_members_where_one_can_be() -> None:
    result = plan(Budget(flops=1e20), published_laws(), SPACE, top=30)
    assert len(result.ensemble) == 3
    covering = [sum(c.loss[law].value is not None for law in result.ensemble) for c in result.candidates if c.is_moe]
    assert covering[0] == 3
    assert covering == sorted(covering, reverse=True)
    assert not any(line.startswith("the best design is covered by") for line in result.warnings)
    dense = "the best dense design is covered by 2 of the 3 members of the ensemble (fivefactor2025: "
    assert any(line.startswith(dense) for line in result.warnings)


def test_the_members_that_do_not_cover_the_best_design_are_named() -> None:
    joint, abnar, five = predictors_of([get_law(law) for law in ("ludziejewski2025", "abnar2025", "fivefactor2025")])
    predictors = [
        replace(joint, ranges={**joint.ranges, "expert_ratio": (1.0, 8.0)}),
        replace(abnar, ranges={**abnar.ranges, "sparsity": (0.95, 0.97)}),
        five,
    ]
    space = SPACE.replace(n_experts=[8, 32], top_k=[1], kinds=["moe"])
    result = plan(Budget(flops=1e20), predictors, space)
    missing = [law for law in result.ensemble if result.best.loss[law].value is None]
    lines = [line for line in result.warnings if line.startswith("the best design is covered by 2 of the 3 members")]
    assert len(result.ensemble) == 3
    assert len(missing) == len(lines) == 1
    assert f"({missing[0]}: " in lines[0]
    assert lines[0].endswith("; none is covered by all")
    assert not any(missing[0] in line for line in result.warnings if "clipped to the fitted range" in line)


def test_a_fit_without_a_hold_out_weighs_nothing_beside_one_that_has(tiny: Space, fits: list[FittedLaw]) -> None:
    score = Holdout(n_runs=4, mean_abs_rel=0.01, bias_rel=0.0, coverage_80=None, max_extrapolation=None, by="")
    scored, unscored = fits[0].with_holdout(score), fits[1]
    assert [predictor.weight for predictor in predictors_of([scored, unscored])] == [pytest.approx(1e4), 0.0]
    both = plan(Budget(flops=5e12), [scored, unscored], tiny, top=1)
    alone = plan(Budget(flops=5e12), [scored], tiny, top=1)
    assert both.best.mean_loss.value == pytest.approx(alone.best.mean_loss.value)
    assert unscored.law.id in both.best.loss
    assert [predictor.weight for predictor in predictors_of(fits)] == [1.0, 1.0]


def test_one_law_needs_no_list(fits: list[FittedLaw]) -> None:
    for law in ("abnar2025", get_law("abnar2025"), fits[0]):
        assert len(predictors_of(law)) == 1  # type: ignore[arg-type]


def test_a_law_named_twice_is_one_predictor(tiny: Space, fits: list[FittedLaw]) -> None:
    assert [
        predictor.id for predictor in predictors_of([get_law("abnar2025"), "abnar2025", get_law("ludziejewski2025")])
    ] == [
        "abnar2025",
        "ludziejewski2025",
    ]
    assert [predictor.weight for predictor in predictors_of(["abnar2025", "abnar2025"], weights=[1, 2])] == [3]
    assert len(predictors_of([*fits, fits[0]])) == 2
    assert [predictor.id for predictor in predictors_of([fits[0], get_law(fits[0].law.id)])] == [
        "ludziejewski2025",
        "ludziejewski2025#2",
    ]
    with pytest.raises(InputError, match="no such law 'unknown2020'"):
        predictors_of(["unknown2020"])


def test_a_law_without_tokens_does_not_apply_to_repeated_data() -> None:
    space = Space(d_model=(1024, 1536, 2048), n_layers=(16, 24), n_experts=(16, 64), top_k=(1,), n_shared_experts=(0,))
    laws = ["clark2022-hash", "ludziejewski2025"]
    fresh = plan(Budget(flops=1e21), laws, space)
    prediction = fresh.choices["clark2022-hash"].loss["clark2022-hash"]
    assert prediction.value is not None
    again = plan(Budget(flops=1e21, unique_tokens=1e9, max_epochs=300), laws, space)
    assert "clark2022-hash" not in again.choices
    with pytest.raises(InputError, match="it cannot distinguish repeated data from new data"):
        plan(Budget(flops=1e21, unique_tokens=1e9, max_epochs=125), laws[:1], space)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"flops": 1e20, "unique_tokens": 100}, "unique_tokens 100: less than one sequence of 4,096 tokens over 4 ep"),
        (
            {"flops": 1e20, "max_tokens": 1},
            "max_tokens 1: less than one sequence of 4,096 tokens; the nearest feasible",
        ),
        ({"flops": 1e20, "max_tokens": 5000}, "max_tokens: predictions are meaningless here"),
        ({"flops": 1e20, "unique_tokens": 1100}, "unique_tokens: predictions are meaningless here"),
        ({"flops": 2e13}, "flops: predictions are meaningless here"),
    ],
)
def test_a_refusal_names_the_scarce_limit_and_a_value_that_works(limits: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as error:
        plan(Budget(**limits), ["ludziejewski2025"], SPACE)
    assert message in str(error.value)
    field = message.split()[0].rstrip(":")
    if "meaningless" in message:
        nearest = str(error.value).split(f"; {field} ")[1].split()[0]
        assert plan(Budget.parse({**limits, field: nearest}), ["ludziejewski2025"], SPACE).best.tokens > 4096


@pytest.fixture(scope="module")
def planner() -> Planner:
    """By the published laws, over the default space."""
    return Planner()


def test_a_dense_baseline_at_the_end_of_the_space_is_warned_of(planner: Planner) -> None:
    """At 1e25 the best dense design is the deepest and widest that is searched; at 1e23 it is neither."""
    corner, inside = (planner.begin(Budget(flops=flops)).first for flops in (1e25, 1e23))
    assert corner.best_dense is not None
    config = corner.best_dense.config
    assert (config.n_layers, config.d_model) == (planner.space.n_layers[-1], planner.space.d_model[-1])
    assert (
        "the best dense design lies at the end of the widths and the numbers of layers that were searched: a better "
        "one may lie beyond, and the share of its compute that MoE needs is then too small"
    ) in corner.warnings
    assert not any("the best dense design lies at the end" in line for line in inside.warnings)


def test_laws_of_dense_models_that_disagree_with_the_dense_baseline_are_named(planner: Planner) -> None:
    """At 1e23 some put it more than 10 % behind their own optimum, at 1e21 none does."""
    far, near = (planner.begin(Budget(flops=flops)).first for flops in (1e23, 1e21))
    laws = ["hoffmann2022", "besiroglu2024", "frantar2023", "muennighoff2023", "krajewski2024-dense"]
    assert far.best_dense is not None
    behind = [far.best_dense.loss[law].behind_compute or 0.0 for law in laws]
    assert min(behind) < 0.1 < max(behind)
    size = format_number(far.best_dense.params_total)
    assert (
        f"laws of dense models alone ({', '.join(laws)}) put the best dense design ({size}) {min(behind):.0%} to "
        f"{max(behind):.0%} of compute behind their own optima: --kinds dense asks them"
    ) in far.warnings
    assert near.best_dense is not None
    assert max(near.best_dense.loss[law].behind_compute or 0.0 for law in laws) < 0.1
    assert not any("dense models alone" in line for line in near.warnings)


@pytest.mark.parametrize(("fitted", "moe", "asks"), [(False, True, True), (True, True, False), (False, False, False)])
def test_kinds_dense_asks_laws_of_dense_models_where_no_fit_ranks_before_them(
    fitted: bool, moe: bool, asks: bool
) -> None:
    """A plan of dense designs alone is such a plan already."""
    ranking: Any = SimpleNamespace(ensemble=[SimpleNamespace(fitted=fitted)])
    found: Any = SimpleNamespace(best_moe=object() if moe else None)
    assert asks_dense_laws(found, ranking) is asks
