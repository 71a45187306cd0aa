"""Tables and designs as a fit reads them: what is derived, what is read, and what is refused with a message."""

import numpy as np
import polars as pl
import pytest

import moelab
from moelab.errors import InputError
from moelab.fitting import FittedLaw
from moelab.fitting.fit import fit
from moelab.fitting.predict import predict
from moelab.laws import get_law

GOOD = {
    "params_total": np.geomspace(1e7, 1e9, 20),
    "tokens": np.geomspace(1e9, 1e11, 20),
    "loss": np.linspace(4, 2, 20),
}


def broken(name: str, value: object, row: int = 3) -> dict[str, object]:
    column = [*np.asarray(GOOD[name]).tolist()]
    column[row] = value
    return {**GOOD, name: column}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({k: v for k, v in GOOD.items() if k != "tokens"}, "no column for tokens; map one with --let 'tokens = ...'"),
        ({k: v for k, v in GOOD.items() if k != "loss"}, "the table has no column 'loss' to fit"),
        (broken("loss", np.nan), "loss: must be finite numbers; 1 of 20 rows are not, first row 4"),
        (broken("loss", -1.0), "loss: must be positive; 1 of 20 rows are not, first row 4"),
        (broken("params_total", 0.0), "params_total: must be positive"),
        (broken("tokens", np.inf), "tokens: must be finite"),
        (broken("tokens", "many"), "tokens: expected numbers, row 4 holds 'many'"),
        ({k: v[:0] for k, v in GOOD.items()}, "the table has no rows"),
        ({**GOOD, "loss": np.full(20, 2.5)}, "loss: all 20 rows hold 2.5, which identifies no coefficient"),
        ({k: v[:4] for k, v in GOOD.items()}, "4 rows are too few"),
        (3, "expected a data frame"),
    ],
)
def test_bad_tables_are_refused(table, message) -> None:
    with pytest.raises(InputError, match=message):
        fit(table, "hoffmann2022", bootstrap=0)


def test_sparsity_must_be_a_share(synthetic) -> None:
    law = get_law("abnar2025")
    table = synthetic(law, law.published, 30)
    table["sparsity"][0] = 1.0
    with pytest.raises(
        InputError, match=r"sparsity: must be at least 0 and below 1; 1 of 30 rows are not, first row 1 \(1\)"
    ):
        fit(table, law)


def test_variables_follow_from_other_columns() -> None:
    from moelab.fitting.columns import variable

    columns = {
        "n_experts": np.array([1.0, 64.0]), "top_k": np.array([1.0, 8.0]), "d_expert": np.array([512.0, 64.0]),
        "d_shared": np.array([0.0, 64.0]), "n_shared_experts": np.array([0.0, 1.0]),
        "params_non_embedding": np.array([10.0, 138.0]), "params_active_non_embedding": np.array([10.0, 26.0]),
    }  # fmt: skip
    assert variable(columns, "sparsity").tolist() == [0, 0.875]
    assert variable(columns, "expert_ratio").tolist() == [1, 65 / 9]
    assert variable(columns, "params_dense").tolist() == [10, 12]
    assert variable(columns, "shared_share").tolist() == [0, 1 / 9]
    assert variable(columns, "tokens") is None
    ling = {"n_experts": np.array([256.0]), "top_k": np.array([8.0]), "n_shared_experts": np.array([1.0])}
    assert variable(ling, "expert_activation").tolist() == [9 / 257]
    assert variable(ling, "expert_ratio").tolist() == [257 / 9]
    for frame in (pl.DataFrame(columns), [{k: float(v[i]) for k, v in columns.items()} for i in range(2)]):
        from moelab.fitting.columns import columns_of

        assert variable(columns_of(frame), "sparsity").tolist() == [0, 0.875]


def test_a_path_is_a_table_too(tmp_path, synthetic) -> None:
    law = get_law("hoffmann2022")
    table = synthetic(law, law.published, 30, 0.005)
    pl.DataFrame(table).write_parquet(tmp_path / "runs.parquet")
    by_path = fit(tmp_path / "runs.parquet", law, bootstrap=0, starts=1)
    assert by_path.objective == fit(table, law, bootstrap=0, starts=1).objective


@pytest.fixture(scope="module")
def abnar(synthetic) -> FittedLaw:
    law = get_law("abnar2025")
    return fit(synthetic(law, law.published, 30, 0.005), law, bootstrap=20, starts=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"params_total": -1e9}, "params_total: must be positive, got -1e"),
        ({"tokens": 0}, "tokens: must be positive, got 0"),
        ({"tokens": np.nan}, "tokens: must be finite and positive, got nan"),
        ({"sparsity": 1}, "sparsity: must be at least 0 and below 1, got 1"),
        ({"sparsity": [0.5, 2]}, r"sparsity: must be at least 0 and below 1; 1 of 2 rows are not, first row 2 \(2\)"),
        ({"tokens": "many"}, "tokens: expected numbers, row 1 holds 'many'"),
        ({"tokens": [1e9, 2e9], "sparsity": [0.1, 0.2, 0.3]}, "differ in length: params_total 1, tokens 2, sparsity 3"),
    ],
)
def test_designs_that_cannot_be_are_refused(values, message, abnar) -> None:
    with pytest.raises(InputError, match=message):
        abnar.predict(**{"params_total": 1e9, "tokens": 2e10, "sparsity": 0.5, **values})


def test_no_prediction_is_infinite(synthetic) -> None:
    law = get_law("hoffmann2022")
    found = fit(synthetic(law, law.published, 30), law, fix={"alpha": 1.5}, bootstrap=0, starts=2)
    with pytest.raises(InputError, match=r"gives no finite number at params_total=1e-300, tokens=1e\+10"):
        found.predict(params_total=1e-300, tokens=1e10)


def test_one_law_may_be_given_as_a_string() -> None:
    with pytest.raises(moelab.InputError, match="no such law 'nothing2022'"):
        moelab.compare_laws({"loss": [1.0], "tokens": [1.0]}, "nothing2022")


def test_no_run_sees_more_distinct_tokens_than_tokens() -> None:
    """A corpus larger than the run: losses, fits, ranges and distances are those of a run that repeats nothing."""
    law, rng = get_law("muennighoff2023"), np.random.default_rng(2)
    size, tokens = np.geomspace(1e7, 2e9, 30), np.geomspace(1e9, 4e10, 30)[rng.permutation(30)]
    runs = {"params_total": size, "params_active": size, "tokens": tokens}
    runs["loss"] = law.loss(None, {**runs, "unique_tokens": tokens}) * np.exp(0.002 * rng.standard_normal(30))
    for name, given in (("muennighoff2023", {"R_D": 15.4, "R_N": 5.3}), ("moelab2026", {})):
        once, larger, short = (
            fit({**runs, **more}, name, bootstrap=0, starts=4, fix=given)
            for more in ({"unique_tokens": tokens}, {"unique_tokens": np.full(30, 1e12)}, {"epochs": tokens / 1e12})
        )
        assert larger.coefficients == once.coefficients == short.coefficients
        assert larger.ranges == once.ranges == short.ranges
        assert larger.ranges["unique_tokens"] == larger.ranges["tokens"]
        at = {"params_total": 1e9, "params_active": 1e9, "tokens": 2e10}
        seen, whole = (predict(larger, **at, unique_tokens=unique) for unique in (2e10, 5e12))
        assert seen.only == whole.only
        assert seen.only.extrapolation == 0
        assert not any("no law here reads" in note for note in whole.notes)
        assert predict(larger, **at, unique_tokens=1e9).only.value > seen.only.value
    published = [predict("muennighoff2023", **at, unique_tokens=unique) for unique in (2e10, 5e12)]
    assert published[0].only == published[1].only


def test_no_experts_are_a_dense_model_and_half_an_expert_is_none() -> None:
    """As in tables, where 0 means dense; a number of experts is refused by its own name."""
    at = {"params_active": 1e9, "tokens": 2e10}
    dense = predict("ludziejewski2025", **at, n_experts=1, top_k=1)
    for none in ({"n_experts": 0}, {"n_experts": 0, "top_k": 0}, {"n_experts": 0, "top_k": 1}):
        assert predict("ludziejewski2025", **at, **none).only == dense.only
    assert predict("hoffmann2022", params_total=1e9, tokens=2e10, n_experts=0).notes == ()
    for wrong, message in (
        ({"n_experts": 0.5}, "n_experts: must be at least 1, got 0.5"),
        ({"n_experts": -8}, "n_experts: must be at least 1, got -8"),
        ({"n_experts": 8, "top_k": 0}, "top_k: must be positive, got 0"),
        ({"n_experts": 0, "top_k": 2}, "n_experts: must be at least 1, got 0"),
        ({"expert_ratio": 0.5}, "expert_ratio: must be at least 1, got 0.5"),
    ):
        with pytest.raises(InputError, match=message):
            predict("ludziejewski2025", **at, **wrong)
    law = get_law("ludziejewski2025")
    fitted = fit({**GOOD, "params_active": GOOD["params_total"], "n_experts": [0, 8] * 10}, law, bootstrap=0, starts=1)
    both = fitted.predict({"params_active": [1e8, 1e8], "tokens": [1e10, 1e10], "n_experts": [0.0, 8.0]})
    one = fitted.predict({"params_active": [1e8, 1e8], "tokens": [1e10, 1e10], "n_experts": [1.0, 8.0]})
    assert (both.value == one.value).all()
    table = {**GOOD, "params_active": GOOD["params_total"], "n_experts": [0.5, 8] * 10}
    with pytest.raises(InputError, match=r"n_experts: must be at least 1; 10 of 20 rows .*--where \"n_experts >= 1\""):
        fit(table, law, bootstrap=0, starts=1)
