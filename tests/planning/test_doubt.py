"""Doubt stands first, what changes the answer stands beside it, and the argument is in words."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moelab.architecture import count_parameters
from moelab.architecture.released import released_models
from moelab.cli.plan_tables import print_plan
from moelab.errors import InputError
from moelab.fitting.fit import fit
from moelab.fitting.fit_file import fit_from_json, fit_to_json
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.candidate import Interval
from moelab.planning.confidence import LEAST_RATIO, MOST_RATIO, Confidence
from moelab.planning.phrases import saved_by_limits
from moelab.planning.plan import plan
from moelab.planning.plan_page import plan_page
from moelab.planning.result import Plan
from moelab.planning.why import why
from moelab.planning.why_released import beside_released
from moelab.quantities import format_number


def test_a_supported_plan_begins_with_the_design(inside: Plan) -> None:
    assert inside.confidence.level == "supported"
    assert inside.sentence.startswith("Train a MoE model")
    assert 0.7 * inside.best.train_flops < inside.train_flops_causal < inside.best.train_flops
    assert " causal)" in inside.sentence
    assert inside.to_dict()["confidence"]["sentence"] == ""


def test_an_extrapolation_is_named_first(coarse: Space) -> None:
    found = plan(Budget(flops=1e24), ["ludziejewski2025"], coarse)
    assert found.confidence.level in ("extrapolated", "unsupported")
    assert found.confidence.doubtful
    assert found.sentence.startswith(("This plan is an extrapolation", "No law supports this plan"))
    assert "%" not in found.sentence.split(". ")[0]


def test_a_law_without_a_range_is_doubted_first_and_a_fit_without_tokens_is_refused(coarse: Space) -> None:
    """By a law without tokens a larger model costs nothing."""
    unknown = plan(Budget(flops=1e20), ["fivefactor2025"], coarse)
    assert unknown.sentence.startswith("How far this plan lies outside the runs is not known")
    assert unknown.confidence.doubtful
    law = get_law("clark2022-sbase")
    sizes, experts = (values.ravel() for values in np.meshgrid(np.geomspace(2e7, 1e9, 6), [1, 8, 64]))
    runs: dict[str, Any] = {"params_active_non_embedding": sizes, "expert_ratio": experts * 1.0}
    runs["loss"] = law.loss(None, runs)
    with pytest.raises(InputError, match=r"^law: tokens are no variable of clark2022-sbase"):
        plan(Budget(flops=1e20), [fit(runs, law, bootstrap=0, starts=1)], coarse)


def test_a_fit_in_another_unit_is_warned_of(coarse: Space) -> None:
    """A plan is in tokens; a fit to tokens in billions predicts for other designs."""
    law = get_law("hoffmann2022")
    params, tokens = (values.ravel() for values in np.meshgrid(np.geomspace(5e7, 2e9, 6), np.geomspace(1e9, 3e10, 6)))
    runs = {
        "params_total": params,
        "tokens": tokens,
        "loss": law.loss(None, {"params_total": params, "tokens": tokens}),
    }
    whole, scaled = (
        plan(Budget(flops=1e20), [fit({**runs, "tokens": tokens / unit}, law, bootstrap=0, starts=1)], coarse)
        for unit in (1, 1e9)
    )
    warning = "hoffmann2022 was given another unit: tokens: 1 to 30 look like billions"
    assert warning in scaled.warnings
    assert not any("another unit" in line for line in whole.warnings)


def test_why_names_dense_and_what_settled_the_experts(inside: Plan) -> None:
    lines = why(inside)
    assert any("best dense model under the same limits" in line for line in lines)
    assert any("cannot distinguish" in line and "laws of granularity" in line for line in lines)


def test_draws_in_which_dense_is_better_stand_with_the_comparison(inside: Plan) -> None:
    for chance, ending in (
        (None, " of its compute."),
        (0.97, " of its compute."),
        (0.79, "; in 21% of the draws dense is better."),
    ):
        line = next(each for each in why(replace(inside, p_moe_beats_dense=chance)) if "best dense model" in each)
        assert line.endswith(ending)


def test_the_memory_of_the_serving_devices_is_a_limit() -> None:
    wanted = {"hardware": "h100", "tokens": 1e12, "traffic": {"gpus": 1}}
    budget = Budget.parse({"flops": 1e22, "objective": "loss", "serving": wanted, "mfu": 0.4})
    found = plan(
        budget, ["ludziejewski2025"], Space(d_model={"from": 2048, "to": 6144, "step": 256}, n_experts=(16, 64))
    )
    assert "serving_memory" in found.binding
    assert found.sensitivity["serving_memory"]["gain_compute"] > 0.001
    assert "the memory of the serving devices" in found.sentence


def test_gains_are_capped(coarse: Space) -> None:
    found = plan(Budget(flops=1e22, max_params=0.5e9), ["ludziejewski2025"], coarse)
    assert all(gain["gain_compute"] <= 9.0 for gain in found.sensitivity.values())


def _dense_sentence(found: Plan, **changed: Any) -> str:
    """What stands on the best dense model once some of its numbers are others."""
    assert found.best_dense is not None
    other = replace(found, best_dense=replace(found.best_dense, **changed))
    return next(line for line in why(other) if "best dense model" in line)


def test_a_dense_model_of_no_more_excess_is_compared_by_what_is_known(coarse: Space) -> None:
    """A lower loss or a higher cost is stated only where the numbers give it."""
    found = plan(Budget(flops=1e20), ["ludziejewski2025"], coarse)
    best = found.best
    assert best.is_moe
    assert best.mean_loss is not None
    worse, better = (Interval(best.mean_loss.value + nats) for nats in (0.01, -0.01))
    text = _dense_sentence(found, regret_compute=best.regret_compute, mean_loss=worse)
    assert "a loss higher by 0.010 nats" in text
    assert "costs" not in text
    assert "a loss lower by 0.010 nats" in _dense_sentence(found, regret_compute=Interval(-0.1), mean_loss=better)
    assert "ties in excess" in _dense_sentence(found, regret_compute=best.regret_compute, mean_loss=None)
    far = _dense_sentence(found, regret_compute=Interval(0.9999))
    assert "less than 1% of its compute" in far


def test_no_percentage_of_compute_stands_beside_a_plan_without_support(
    capsys: pytest.CaptureFixture[str], coarse: Space
) -> None:
    found = plan(Budget(flops=1e30), ["ludziejewski2025", "abnar2025"], coarse)
    assert found.confidence.meaningless
    print_plan(found)
    printed = capsys.readouterr().out
    assert "%" not in printed
    assert "No law supports this plan" in printed
    page = plan_page(found, "moelab plan")
    assert not {"Loss against size", "Loss along each axis"} & {section.title for section in page.sections}
    assert not any("%" in str(part) for section in page.sections for part in (section.text, section.tables))


@pytest.mark.parametrize(
    ("budget", "least", "most"),
    [
        ({"flops": 1e22, "unique_tokens": 1e6, "max_epochs": 1}, 0.0, 0.5),
        ({"flops": 1e22, "max_params": 2e8, "serve_flops_tokens": 0}, 2e4, 1e9),
    ],
)
def test_tokens_per_active_parameter_far_from_released_models_are_doubtful(
    budget: dict[str, float], least: float, most: float, coarse: Space
) -> None:
    space = coarse.replace(d_model=[256, 1024], n_layers=[4, 12])
    found = plan(Budget.parse(budget), ["abnar2025", "ludziejewski2025"], space)
    assert least < found.best.tokens / found.best.params_active < most
    assert found.confidence.doubtful
    assert "out of range" in found.sentence.split("Train ")[0]
    assert any("tokens per active parameter" in line for line in found.warnings)


def test_the_distance_names_its_variable_and_that_in_compute() -> None:
    """Eighteen runs of three budgets up to 3e19 FLOPs, and a plan of a thousand times their compute."""
    budget, factor = (axis.ravel() for axis in np.meshgrid([3e18, 1e19, 3e19], np.geomspace(0.5, 2, 6)))
    size = np.sqrt(budget / 120) * factor
    runs = {"params_total": size, "params_active": size, "tokens": budget / (6 * size)}
    runs["loss"] = 1.7 + 406 / size**0.34 + 411 / runs["tokens"] ** 0.28
    fitted = fit(runs, "hoffmann2022", bootstrap=0, starts=32)
    assert fitted.most_flops == pytest.approx(3e19)
    assert fit_from_json(fit_to_json(fitted)).most_flops == fitted.most_flops
    far = plan(Budget(flops=3e22), [fitted], Space(kinds=["dense"]))
    assert far.confidence.level == "extrapolated"
    assert far.confidence.variable in ("params_total", "tokens")
    assert f"times outside its runs in {far.confidence.variable}." in far.sentence
    assert far.confidence.compute == pytest.approx(3, abs=0.01)
    assert " times that of the largest run." in far.sentence.partition("Its compute is ")[2]
    near = plan(Budget(flops=6e19), [fitted], Space(kinds=["dense"]))
    assert near.confidence.compute == pytest.approx(np.log10(2), abs=0.01)
    assert "times that of the largest run" not in near.sentence


def test_laws_of_unknown_range_are_not_counted_as_far() -> None:
    known = Confidence("extrapolated", 1.4757, {"moe": [], "dense": []})
    assert "every law of the ensemble is used at least 29 times" in known.sentence
    partly = replace(known, unknown=["fivefactor2025"])
    assert "every law of the ensemble whose range is known is used at least 29 times" in partly.sentence
    assert partly.to_dict()["range_unknown"] == ["fivefactor2025"]


def test_large_numbers_are_capped_in_words(inside: Plan) -> None:
    gains = {"memory": {"gain_compute": 9.0}, "data": {"gain_compute": 0.02}, "params": {"gain_compute": 1e-5}}
    assert saved_by_limits(gains) == [
        ("memory", "as much loss as more than twice the compute"),
        ("data", "as much loss as 2.0% compute"),
    ]
    best = replace(inside.best, tokens=1)
    assert "saw over 100 times as many" in beside_released(replace(inside, candidates=[best]))[0]


def test_the_range_of_released_models_in_the_sentence_is_the_catalogue_s() -> None:
    ratios = [
        model.tokens / count_parameters(model.config).params_active
        for model in released_models().values()
        if model.tokens is not None
    ]
    assert LEAST_RATIO < min(ratios) < max(ratios) < MOST_RATIO
    doubt = Confidence("supported", 0.0, {"moe": [], "dense": []}, ratio=0.01).sentence
    assert f"saw {min(ratios):.0f} to {format_number(max(ratios), 3)}" in doubt
