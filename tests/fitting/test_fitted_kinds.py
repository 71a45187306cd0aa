"""What a fit owes its prior and which experts its runs had, as predictions state it; a plan ranks by the same rule."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import moelab
from moelab.architecture import load_model
from moelab.cli import main
from moelab.errors import InputError
from moelab.fitting import save_fits
from moelab.fitting.fitted_kinds import kind_of_runs, single_values, value_words
from moelab.fitting.observations import observations
from moelab.fitting.owed import owed_notes
from moelab.fitting.prior import shipped, to_coefficients
from moelab.laws import Design, get_law
from moelab.laws.moelab2026 import EXPERTS
from moelab.planning.given_laws import predictors_of

LAW = get_law("moelab2026")
SIZE = {"params_active": 2e8, "tokens": 2e10}


def fit_of(**experts: Any) -> Any:
    """A fit with the shipped prior to twelve runs of its mean, whose experts are given."""
    known = shipped(LAW.id)
    assert known is not None
    rng = np.random.default_rng(3)
    table = {"params_active": np.geomspace(1e7, 2e8, 12), "tokens": np.geomspace(1e9, 1e10, 12)[rng.permutation(12)]}
    table |= {name: np.broadcast_to(np.asarray(value, float), 12) for name, value in experts.items()}
    variables = observations({**table, "loss": np.linspace(3, 4, 12)}, LAW).variables
    loss = LAW.loss(to_coefficients(LAW, known.of(LAW).mean[None]), variables)[0]
    return moelab.fit({**table, "loss": loss * np.exp(0.003 * rng.standard_normal(12))}, LAW, bootstrap=12)


@pytest.fixture(scope="module")
def dense() -> Any:
    return fit_of()


@pytest.fixture(scope="module")
def mixed() -> Any:
    return fit_of(n_experts=np.tile([1, 8, 32], 4), top_k=1)


@pytest.fixture(scope="module")
def moe() -> Any:
    return fit_of(n_experts=8, top_k=1)


def test_what_experts_are_worth_changes_no_dense_loss() -> None:
    known = shipped(LAW.id)
    assert known is not None
    mean = {name: float(value[0, 0]) for name, value in to_coefficients(LAW, known.of(LAW).mean[None]).items()}
    dense = LAW.gradient(mean, {name: np.array([value]) for name, value in SIZE.items()})
    experts = {"expert_ratio": np.array([8.0]), "granularity": np.array([4.0])}
    moe = LAW.gradient(mean, {**{name: np.array([value]) for name, value in SIZE.items()}, **experts})
    changed = {name for name in LAW.coefficients if abs(moe[name]).max() > 0 and abs(dense[name]).max() < 1e-12}
    assert set(EXPERTS) == changed


def test_one_line_counts_what_is_owed_to_the_prior() -> None:
    share = dict.fromkeys(LAW.coefficients, 0.1)
    prior = {"name": "mine", "share": share}
    assert owed_notes("law", None, moe=True) == owed_notes("law", prior, moe=True) == []
    share |= {"E_0": 0.5, "kappa_0": 0.9}
    mostly = "law: 2 of 18 coefficients come mostly from the prior 'mine'"
    assert owed_notes("law", prior, moe=False) == [f"{mostly} (E_0, kappa_0)"]
    (line,) = owed_notes("law", prior, moe=True)
    assert line == f"{mostly}, among them 1 of the 8 that state what experts are worth (kappa_0)"
    share |= dict.fromkeys(EXPERTS, 1.0)
    assert "among them all 8 that state what experts are worth" in owed_notes("law", prior, moe=True)[0]


@pytest.mark.parametrize(
    ("ranges", "kind", "single"),
    [
        ({"expert_ratio": (1.0, 1.0), "granularity": (1.0, 1.0)}, "dense", "expert_ratio 1 and granularity 1"),
        ({"expert_ratio": (1.0, 32.0), "granularity": (1.0, 1.0)}, None, "granularity 1"),
        ({"expert_ratio": (4.0, 32.0), "granularity": (1.0, 8.0)}, "MoE", ""),
        ({"sparsity": (0.75, 0.75), "tokens": (1e9, 1e9)}, "MoE", "sparsity 0.75"),
        ({"sparsity": (0.0, 0.0)}, "dense", "sparsity 0"),
        ({"params_active": (1e7, 1e7), "granularity": None}, None, ""),
    ],
)
def test_the_kind_of_the_runs_is_read_from_their_ranges(ranges: Any, kind: str | None, single: str) -> None:
    assert kind_of_runs(ranges) == kind
    assert value_words(single_values(ranges)) == single


def test_runs_without_a_column_of_experts_are_dense(dense: Any, moe: Any) -> None:
    assert set(dense.kinds) == {"dense"}
    assert set(moe.kinds) == {"moe"}


def test_predictions_of_a_moe_by_dense_runs_are_marked(dense: Any) -> None:
    owed = "among them all 8 that state what experts are worth"
    alone = "moelab2026: all fitted runs are dense, so the prior alone states what experts are worth; plan ranks no "
    for found in (
        moelab.predict(dense, n_experts=8, **SIZE),
        moelab.predict(dense, "mixtral-8x7b", tokens="2T"),
        moelab.predict(dense, "llama3-8b", tokens="2T", against="mixtral-8x7b"),
    ):
        assert sum(owed in note for note in found.notes) == 1
        assert [note for note in found.notes if note.startswith(alone)] == [
            note for note in found.notes if note.endswith("without --extrapolate")
        ]
        assert sum(note.startswith(alone) for note in found.notes) == 1
        assert found.to_dict()["notes"] == list(found.notes)
    plain = moelab.predict(dense, **SIZE).notes
    assert sum("come mostly from the prior" in note for note in plain) == 1
    assert not any("extrapolate" in note or "among them" in note for note in plain)


def test_other_experts_than_those_of_the_runs_are_marked(mixed: Any, moe: Any) -> None:
    inside = moelab.predict(mixed, n_experts=8, **SIZE)
    assert not any("extrapolate" in note for note in inside.notes)
    (note,) = (n for n in moelab.predict(mixed, n_experts=128, **SIZE).notes if "extrapolate" in n)
    assert note.startswith("moelab2026: expert_ratio is 128 (in the fitted runs 1 to 32); plan ranks no such design")
    (note,) = (n for n in moelab.predict(moe, n_experts=8, granularity=4, **SIZE).notes if "extrapolate" in n)
    assert "granularity is 4 (in the fitted runs 1 alone)" in note
    found = moelab.predict(moe, n_experts=1, **SIZE)
    assert any(
        "no fitted run is dense, so a dense model's loss is extrapolated from MoE models" in n for n in found.notes
    )
    assert any("that state what experts are worth" in n for n in found.notes)


@pytest.mark.parametrize("ratio", [1.0, 1.02, 1.03, 8.0, 8.18, 8.2, 31.0, 32.5, 33.0])
@pytest.mark.parametrize("name", ["dense", "mixed", "moe"])
def test_a_plan_ranks_what_predictions_leave_unmarked(name: str, ratio: float, request: Any) -> None:
    fitted = request.getfixturevalue(name)
    notes = moelab.predict(fitted, expert_ratio=ratio, **SIZE).notes
    predictor = predictors_of([fitted])[0]
    read = predictor.law.read(Design.of(load_model("llama3-8b"), 1e10, 4096), published=False)
    changed = replace(read, variables={**read.variables, "expert_ratio": np.array(ratio)})
    covered = bool(predictor._within(changed).covered)
    assert covered is not any("without --extrapolate" in note for note in notes)


def test_the_command_prints_both_lines(dense: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    save_fits({LAW.id: dense}, tmp_path / "fit.json")
    design = [word for text in ("n_experts=8", "params_active=2e8", "tokens=10B") for word in ("--set", text)]
    with pytest.raises(SystemExit):
        main(["predict", str(tmp_path / "fit.json"), *design])
    text = " ".join(capsys.readouterr().out.split())
    assert "note: moelab2026: all fitted runs are dense, so the prior alone states what experts are worth" in text
    assert "coefficients come mostly from the prior 'moelab2026, public runs and published laws', among them" in text


def test_an_optimum_chooses_experts_and_granularity_among_those_of_the_runs(dense, mixed, moe) -> None:
    for fitted, ratio in ((dense, 1), (mixed, 32), (moe, 8)):
        found = fitted.optimum(1e21)
        assert (found.point.values["expert_ratio"], found.point.values["granularity"]) == (ratio, 1)
        assert not [note for note in found.notes if "plan ranks no" in note]
    between = fit_of(n_experts=6, top_k=1).optimum(1e21)  # none of the law's own choices
    assert between.point.values["n_experts"] == 6


def test_an_optimum_of_set_experts_has_the_notes_of_a_prediction_there(dense, mixed) -> None:
    for fitted, given in ((dense, {"n_experts": 8}), (mixed, {"expert_ratio": 8, "granularity": 4})):
        found = fitted.optimum(1e21, given)
        design = {name: found.point.values[name] for name in LAW.variables if name != "unique_tokens"}
        there = moelab.predict(fitted, **design).notes
        assert [note for note in there if "plan ranks no" in note]
        assert [note for note in there if "come mostly from the prior" in note]
        assert set(there) <= set(found.notes)


def test_the_experts_of_an_optimum_fit_together(mixed) -> None:
    """With G experts in use, E = n_experts / G; shared ones count in both widths."""
    for given in ({"n_experts": 64, "granularity": 8}, {"expert_ratio": 8, "granularity": 8}):
        at = mixed.optimum(1e21, given).point.values
        assert (at["n_experts"], at["granularity"], at["expert_ratio"]) == (64, 8, 8)
    at = mixed.optimum(1e21, {"n_experts": 60, "granularity": 8, "shared_share": 0.5}).point.values
    assert at["expert_ratio"] == pytest.approx((60 + 4) / (4 + 4))
    at = mixed.optimum(1e21, {"n_experts": 1, "granularity": 1}).point.values
    assert (at["n_experts"], at["granularity"], at["expert_ratio"]) == (1, 1, 1)
    for given, message in (
        ({"n_experts": 4, "granularity": 8}, "n_experts is 4, fewer than the 8 in use"),
        ({"n_experts": 8, "expert_ratio": 8}, "give n_experts or expert_ratio"),
        ({"n_experts": 0.5}, "set: n_experts must be at least 1, got 0.5"),
        ({"n_experts": 0}, "set: n_experts is out of range, got 0"),
        ({"n_experts": -1}, "set: n_experts is out of range, got -1"),
    ):
        with pytest.raises(InputError, match=message):
            mixed.optimum(1e21, given)


def test_an_optimum_of_set_experts_takes_a_granularity_whose_ratio_its_runs_have(dense, mixed) -> None:
    """All runs of 64 experts are top-8; at granularity 1 they would be a ratio of 64, eight times beyond the runs."""
    used = np.tile([1, 1, 2, 8], 3)
    four = fit_of(n_experts=np.tile([1, 8, 16, 64], 3), top_k=used, granularity=used)
    for experts, granularities in ((64, (8,)), (32, (4, 8)), (16, (2, 4, 8)), (8, (1, 2, 4)), (2, (1,)), (1, (1,))):
        found = four.optimum(1e18, {"n_experts": experts})
        at = found.point.values
        assert at["n_experts"] == experts
        assert at["granularity"] in granularities
        assert at["expert_ratio"] == experts / at["granularity"]
        assert not [note for note in found.notes if "plan ranks no" in note]
    assert four.optimum(1e18, {"n_experts": 1}).point.decided_by == ()  # dense: no granularity that would limit it
    assert four.optimum(1e18, {"expert_ratio": 1}).point.decided_by == ()
    assert four.optimum(1e18, {"n_experts": 512}).point.values["granularity"] == 8  # a ratio of 64, the nearest
    far = mixed.optimum(1e21, {"n_experts": 128})  # no granularity of the runs has a ratio within theirs
    assert far.point.values["expert_ratio"] == 128
    assert any("expert_ratio is 128 (in the fitted runs 1 to 32)" in note for note in far.notes)
    assert dense.optimum(1e21, {"n_experts": 8}).point.values["n_experts"] == 8
    fine = fit_of(n_experts=64, top_k=8, granularity=8)
    with pytest.raises(InputError, match=r"set: n_experts is 4, fewer than are in use at the runs' granularity \(8\)"):
        fine.optimum(1e21, {"n_experts": 4})


def test_an_optimum_whose_experts_are_all_in_use_states_that_it_is_dense(mixed) -> None:
    for given, words, dense in (
        ({"n_experts": 2, "granularity": 2}, "n_experts 2 and granularity 2", "n_experts 1 and granularity 1"),
        ({"expert_ratio": 1, "granularity": 2}, "expert_ratio 1 and granularity 2", "granularity 1"),
    ):
        found = mixed.optimum(1e21, given)
        assert found.point.values["expert_ratio"] == 1
        assert f"with {words} all experts are in use, so the design is dense: {dense}" in found.notes
    for given in ({"n_experts": 1}, {"n_experts": 8}, {"expert_ratio": 8, "granularity": 8, "shared_share": 0.5}):
        assert not any("the design is dense" in note for note in mixed.optimum(1e21, given).notes)


def test_shared_experts_of_an_optimum_are_whole(mixed) -> None:
    """Of granularity 8, half of it shared, 4 routed experts are in use: 6 are enough, 3 are not."""
    at = mixed.optimum(1e21, {"n_experts": 6, "granularity": 8, "shared_share": 0.5}).point.values
    assert at["expert_ratio"] == pytest.approx((6 + 4) / (4 + 4))
    at = mixed.optimum(1e21, {"n_experts": 27, "granularity": 30, "shared_share": 0.1}).point.values
    assert at["expert_ratio"] == 1
    with pytest.raises(InputError, match="n_experts is 3, fewer than the 4 in use at this granularity"):
        mixed.optimum(1e21, {"n_experts": 3, "granularity": 8, "shared_share": 0.5})
    used = np.tile([1, 1, 2, 8], 3)
    four = fit_of(n_experts=np.tile([1, 8, 16, 64], 3), top_k=used, granularity=used)
    for share, granularities in ((0.5, (2, 4, 8)), (0.25, (4, 8)), (0.125, (8,))):
        for given in ({}, {"n_experts": 16}, {"expert_ratio": 4}):
            assert four.optimum(1e18, {**given, "shared_share": share}).point.values["granularity"] in granularities


def test_an_optimum_of_a_law_of_top_1_experts_keeps_within_its_runs() -> None:
    law = get_law("ludziejewski2025")
    rng = np.random.default_rng(0)
    table = {"params_active": 10 ** rng.uniform(7.5, 9, 40), "tokens": 10 ** rng.uniform(9, 10.5, 40)}
    table |= {"expert_ratio": rng.choice([2.0, 4.0, 8.0], 40)}
    fitted = moelab.fit({**table, "loss": law.loss(None, table)}, law, bootstrap=0, starts=8, prior="none")
    assert fitted.optimum(1e21).point.values["n_experts"] == 8
    assert "n_experts at the largest considered (8)" in fitted.optimum(1e21).point.decided_by
    far = fitted.optimum(1e21, {"n_experts": 32})
    assert far.point.values["n_experts"] == 32
    assert any("expert_ratio is 32 (in the fitted runs 2 to 8)" in note for note in far.notes)


def runs_of(ratios: Any, **more: Any) -> dict[str, Any]:
    """Runs of a law of dense and MoE models, with the experts of each."""
    ratio = np.tile(np.asarray(ratios, float), 6)
    rng = np.random.default_rng(1)
    size, tokens = np.geomspace(1e7, 5e8, len(ratio)), np.geomspace(1e9, 3e10, len(ratio))[rng.permutation(len(ratio))]
    loss = get_law("ludziejewski2025").loss(None, {"params_active": size, "tokens": tokens, "expert_ratio": ratio})
    return {"params_active": size, "params_total": size * ratio, "tokens": tokens, "loss": loss, **more}


EXPERTS_UNREAD = "hoffmann2022 describes dense models: their params_total is read as a dense model's"


@pytest.mark.parametrize(
    ("columns", "where"),
    [
        ({"n_experts": np.tile([1, 4, 8, 8], 6)}, "n_experts <= 1"),
        ({"n_experts": np.tile([np.nan, 4, 8, 8], 6)}, "n_experts <= 1 OR n_experts IS NULL"),
        ({"sparsity": np.tile([0, 0.75, 0.875, 0.875], 6)}, "sparsity <= 0"),
        ({}, "params_active >= 0.8 * params_total"),
    ],
)
def test_moe_runs_under_a_law_of_dense_models_are_noted(columns: dict[str, Any], where: str) -> None:
    table = runs_of([1, 4, 8, 8], **columns)
    fitted = moelab.fit(table, "hoffmann2022", bootstrap=0, starts=4)
    text = f"18 of 24 runs are MoE; {EXPERTS_UNREAD}"
    assert f"{text}; fit the dense runs alone with --where '{where}'" in fitted.notes
    assert moelab.compare_laws(table, bootstrap=0, starts=4).skipped["hoffmann2022"] == "describes dense models only"
    dense = {name: values[::4] for name, values in runs_of([1, 4, 8, 8]).items()}
    alone = moelab.fit(dense, "hoffmann2022", fix={"alpha": 0.3, "beta": 0.3}, bootstrap=0, starts=4)
    assert not any("MoE" in note for note in alone.notes)
    assert not any("MoE" in note for note in moelab.predict(alone, params_total=1e9, tokens=2e10).notes)


def test_dense_runs_that_count_embeddings_in_one_of_two_columns_are_dense() -> None:
    """Active parameters without embeddings are less than all, and no column has experts."""
    table = runs_of([1, 1])
    table["params_active"] = table["params_total"] / 1.2
    fitted = moelab.fit(table, "hoffmann2022", bootstrap=0, starts=4)
    assert set(fitted.kinds) == {"dense"}
    assert not any("MoE" in note for note in fitted.notes)
    assert "hoffmann2022" not in moelab.compare_laws(table, bootstrap=0, starts=4).skipped


def test_a_fit_file_keeps_that_its_law_reads_no_experts(tmp_path: Any) -> None:
    table = runs_of([4, 8])
    fitted = moelab.fit(table, "hoffmann2022", bootstrap=0, starts=4)
    line = f"12 of 12 runs are MoE; {EXPERTS_UNREAD}"
    assert line in fitted.notes
    save_fits({"hoffmann2022": fitted}, tmp_path / "fit.json")
    notes = moelab.predict(tmp_path / "fit.json", params_total=1e9, tokens=2e10).notes
    assert f"the fit of hoffmann2022: {line}" in notes
    assert f"the fit of hoffmann2022: {line}" in fitted.optimum(1e20).notes
    assert predictors_of([fitted])[0].fit_notes == (f"the fit of hoffmann2022: {line}",)


def test_dense_runs_under_a_law_of_moe_models_are_repeated() -> None:
    table = runs_of([1, 4, 8, 8], granularity=1.0 + np.arange(24) % 3, n_experts=np.tile([1, 4, 8, 8], 6))
    table["params_non_embedding"] = table["params_total"]
    fitted = moelab.fit(table, "krajewski2024", bootstrap=0, starts=4)
    line = "6 of 24 runs are dense, which this law does not describe"
    assert f"{line}; fit the MoE runs alone with --where 'n_experts > 1'" in fitted.notes
    notes = moelab.predict(fitted, params_non_embedding=1e9, tokens=2e10, granularity=2).notes
    assert f"the fit of krajewski2024: {line}" in notes
