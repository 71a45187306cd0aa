"""Units of a table before a fit: billions, logarithms and mixed units are found, with the option that mends them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from moelab.fitting.fit import fit
from moelab.fitting.predict import predict
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_losses import mixed_losses
from moelab.laws import get_law
from moelab.runs.table import load_table

V0_1 = Path(__file__).parents[1] / "fixtures" / "v0_1"


def found(table: Any, loss: str | None = None) -> dict[str, str]:
    return {finding.check: str(finding) for finding in check_table(table, loss)}


@pytest.mark.parametrize(
    ("change", "check", "part"),
    [
        ({"tokens": 1e-9}, "units", "look like billions; --let 'tokens = 1e9 * tokens'"),
        ({"tokens": 1e-6}, "units", "look like millions; --let 'tokens = 1e6 * tokens'"),
        ({"params_total": 1e-9}, "units", "look like billions; --let 'params_total = 1e9 * params_total'"),
        (
            {"params_total": 1e-9, "tokens": 1e-9},
            "units",
            "look like billions; --let 'params_total = 1e9 * params_total'",
        ),
        ({"loss": 100}, "units", "look like per cent, not nats per token; --let 'loss = loss / 100'"),
        ({"loss": 0.01}, "units", "which no language model reaches"),
    ],
)
def test_units_out_of_range(change, check, part, clean) -> None:
    table = {**clean, **{name: np.asarray(clean[name]) * factor for name, factor in change.items()}}
    assert any(finding.check == check and part in str(finding) for finding in check_table(table))


def test_sizes_and_tokens_that_are_both_scaled(clean) -> None:
    """Millions of parameters beside billions of tokens: their ratio alone looks plausible."""
    table = {**clean, "params_total": clean["params_total"] / 1e6, "tokens": clean["tokens"] / 1e9}
    units = [str(finding) for finding in check_table(table) if finding.check == "units"]
    assert len(units) == 2
    assert units[0].endswith("--let 'params_total = 1e6 * params_total'")
    assert units[1].endswith("--let 'tokens = 1e9 * tokens'")


def test_two_units_in_one_column(clean) -> None:
    """Some rows in billions, one row, one file: the rows are named, and the option mends the table."""
    some = {**clean, "tokens": np.where(np.arange(30) < 12, clean["tokens"] / 1e9, clean["tokens"])}
    text = found(some)["units"]
    assert text.startswith("tokens: 12 of 30 rows (rows 1 to 12) hold ")
    let = re.search(r"--let '(.*)'$", text)
    assert let is not None
    mended = load_table(pl.DataFrame(some), [let[1]])
    assert mended["tokens"].to_numpy() == pytest.approx(clean["tokens"])
    assert found(mended) == {}
    one = {**clean, "tokens": np.where(np.arange(30) == 4, clean["tokens"] / 1e9, clean["tokens"])}
    assert "1 of 30 rows (row 5) hold" in found(one)["units"]
    files = pl.DataFrame({**clean, "file": ["raw.csv"] * 30})
    scaled = files.with_columns(pl.col("params_total") / 1e6, pl.col("tokens") / 1e9, file=pl.lit("scaled.csv"))
    notes = [str(finding) for finding in check_table(pl.concat([files, scaled])) if finding.check == "units"]
    assert len(notes) == 2
    assert "30 of 60 rows (file scaled.csv)" in notes[0]
    assert "look like millions" in notes[0]
    assert "look like billions" in notes[1]


def test_rows_with_tokens_per_parameter_that_no_run_has(clean) -> None:
    """Thousands leave no gap between the two units, but no row's tokens fit its parameters."""
    tokens = np.where(np.arange(30) % 10 == 3, clean["params_total"] / 1e3, 20 * clean["params_total"])
    assert found({**clean, "tokens": tokens})["units"] == (
        "3 of 30 rows (rows 4, 14, 24) have 0.001 tokens per parameter of params_total, the median is 20: "
        "is their unit another one?"
    )


def test_logarithms_of_sizes_are_no_billions(clean) -> None:
    text = found({**clean, "params_total": np.log10(clean["params_total"])})["units"]
    assert text.endswith("look like decimal logarithms; --let 'params_total = POW(10, params_total)'")


@pytest.mark.parametrize(
    ("take", "name", "power"), [(np.log10, "decimal", "POW(10, {})"), (np.log, "natural", "EXP({})")]
)
def test_logarithms_of_sizes_and_tokens(take, name, power, clean) -> None:
    both = {**clean, "params_total": take(clean["params_total"]), "tokens": take(clean["tokens"])}
    notes = [finding for finding in check_table(both) if finding.check == "units"]
    assert [note.mend for note in notes] == [
        f"--let '{column} = {power.format(column)}'" for column in ("params_total", "tokens")
    ]
    assert all(f"look like {name} logarithms" in note.text for note in notes)
    mended = load_table(pl.DataFrame(both), [note.mend.split("'")[1] for note in notes])
    assert found(mended) == {}


def test_logarithms_or_billions() -> None:
    """Sizes without tokens may be either; two digits, or whole numbers, are billions."""
    alone = {"params_total": np.linspace(7.4771, 9.0001, 12), "loss": np.linspace(4, 3, 12)}
    text = found(alone)["units"]
    assert "look like decimal logarithms or billions; --let 'params_total = POW(10, params_total)' or --let" in text
    billions = {"params_total": [6.7, 7.0, 8.0, 12.1], "tokens": [7.0, 8.0, 12.0, 13.5], "loss": [2.2, 2.1, 2.0, 1.9]}
    assert "look like billions" in found(billions)["units"]


@pytest.mark.parametrize(
    ("factor", "unit", "mend"),
    [(1e18, "exaFLOPs", "1e18"), (1e15, "petaFLOPs", "1e15"), (8.64e19, "petaFLOP/s-days", "8.64e19")],
)
def test_units_of_train_flops(factor, unit, mend, clean) -> None:
    flops = 6 * clean["params_total"] * clean["tokens"]
    assert found({**clean, "train_flops": 1.4 * flops}) == {}
    assert found({**clean, "train_flops": flops / 3}) == {}  # the forward pass alone
    text = found({**clean, "train_flops": flops / factor})["flops"]
    assert text.endswith(f"look like {unit}; --let 'train_flops = {mend} * train_flops'")


def test_train_flops_that_do_not_follow_the_runs(clean) -> None:
    flops = 6 * clean["params_total"] * clean["tokens"]
    own = "--let 'train_flops = 6 * params_total * tokens'"
    one = found({**clean, "train_flops": np.where(np.arange(30) == 7, flops / 1e9, flops)})["flops"]
    assert one.startswith("1 of 30 rows: train_flops is 1e-09 to 1 times 6 x params_total x tokens")
    assert one.endswith(own)
    logs = found({**clean, "train_flops": np.log10(flops)})["flops"]
    assert logs.endswith("look like decimal logarithms; --let 'train_flops = POW(10, train_flops)'")
    assert found({**clean, "train_flops": 200 * flops})["flops"].endswith(own)
    assert found({**clean, "train_flops": flops * (1 + np.arange(30) * 7 % 30)})["flops"].endswith(own)
    assert found({**clean, "train_flops": 0.03 * flops, "n_experts": np.full(30, 64.0)}) == {}  # active ones count


def test_a_toy_run_is_not_in_another_unit() -> None:
    toy = {"params_total": [5e3, 1e4, 2e4], "tokens": [2048.0, 4096.0, 8192.0], "loss": [5.0, 4.8, 4.5]}
    assert "units" not in found(toy)


def test_perplexities_are_no_losses(clean) -> None:
    table = {**clean, "loss": np.exp(clean["loss"] + 0.5)}
    assert "look like perplexity, not nats per token; --let 'loss = LN(loss)'" in found(table)["units"]


def test_a_fit_in_other_units_is_noted_by_its_predictions(clean) -> None:
    fitted = fit({**clean, "tokens": clean["tokens"] / 1e9}, "hoffmann2022", bootstrap=0, starts=1)
    assert "tokens: " in predict(fitted, params_total=1e9, tokens=20).notes[0]
    assert predict(fit(clean, "hoffmann2022", bootstrap=0, starts=1), params_total=1e9, tokens=2e10).notes == ()


def grid(noise: float = 0.002, seed: int = 0) -> dict[str, np.ndarray]:
    """Six sizes by six data ratios of the published Chinchilla law."""
    params = np.repeat([3e7, 6e7, 1.2e8, 2.5e8, 5e8, 1e9], 6)
    table = {"params_total": params, "tokens": params * np.tile([5, 10, 20, 40, 80, 160], 6)}
    off = np.exp(noise * np.random.default_rng(seed).standard_normal(36))
    return {**table, "loss": get_law("hoffmann2022").loss(None, table) * off}


@pytest.mark.parametrize("rows", ["each third", "each second", "the largest sizes", "the most data"])
@pytest.mark.parametrize("unit", ["bits per token", "bits per byte"])
def test_losses_in_two_units(rows, unit) -> None:
    table, at = grid(), np.arange(36)
    mixed = {
        "each third": at % 3 == 0, "each second": at % 2 == 1, "the largest sizes": at >= 24,
        "the most data": at % 6 > 3,
    }[rows]  # fmt: skip
    nats, factor = table["loss"], 1 / np.log(2) / (1 if unit == "bits per token" else 4.3)
    table["loss"] = np.where(mixed, nats * factor, nats)
    notes = [each for each in check_table(table) if each.check == "units"]
    assert len(notes) == 1
    assert f"loss: {mixed.sum()} of 36 rows" in notes[0].text
    assert f"look like {unit}" in notes[0].text
    assert not any(each.check == "diverged" for each in check_table(table))
    mended = load_table(pl.DataFrame(table), let=[re.fullmatch("--let '(.*)'", notes[0].mend).group(1)])
    assert mended["loss"].to_numpy() == pytest.approx(nats, rel=0.01)


def test_a_second_text_is_no_second_unit() -> None:
    """Losses a fifth lower on another text: no conversion explains them."""
    table = grid()
    table["loss"] = np.where(np.arange(36) % 2 == 0, table["loss"], 0.8 * table["loss"])
    assert not any(each.check == "units" for each in check_table(table))
    assert check_table(grid()) == []


def test_tokens_and_parameters_swapped() -> None:
    table = grid()
    swapped = {"params_total": table["tokens"], "tokens": table["params_total"], "loss": table["loss"]}
    text = str(next(each for each in check_table(swapped) if each.check == "swapped"))
    assert "every row has fewer tokens than parameters (0.00625 to 0.2 per parameter of params_total)" in text


@pytest.mark.parametrize("seed", range(4))
def test_the_group_of_another_unit_is_the_best_of_all_groups(seed: int) -> None:
    """Of all 16,384 ways to part 14 rows, that whose losses lie closest to a surface and a constant for the group."""
    rng = np.random.default_rng(seed)
    size, tokens = np.exp(rng.uniform(15, 20, 14)), np.exp(rng.uniform(19, 24, 14))
    bits = rng.permutation(14) < 4
    n, d = np.log(size), np.log(tokens)
    loss = np.exp(2.6 - 0.05 * n - 0.03 * d + 0.001 * n * d + 0.001 * rng.standard_normal(14))
    table = {"params_total": size, "tokens": tokens, "loss": np.where(bits, loss / np.log(2), loss)}
    surface = np.linalg.qr(np.stack([np.ones(14), n, d, n * n, d * d, n * d], axis=1))[0]
    groups = (np.arange(1, 2**14 - 1)[:, None] >> np.arange(14) & 1).astype(float)
    aside = groups - (groups @ surface) @ surface.T
    left = np.log(table["loss"]) - surface @ (surface.T @ np.log(table["loss"]))
    explained = np.where(aside @ left > 0, (aside @ left) ** 2 / np.maximum((aside**2).sum(axis=1), 1e-9), 0.0)
    assert (groups[np.argmax(explained)] == bits).all()
    assert (mixed_losses(table, "loss")[0] == bits).all()


def moe(factor: float = 1.0, **more: Any) -> dict[str, Any]:
    """Dense and MoE runs of 1 to 32 experts, one in use; the active parameters times a factor."""
    rng = np.random.default_rng(5)
    active, experts = np.geomspace(8e7, 2e9, 24), np.tile([1.0, 4, 8, 32], 6)
    table = {"params_active": active * factor, "params_total": active * (1 + 0.6 * (experts - 1))}
    table |= {"n_experts": experts, "top_k": np.ones(24), "tokens": np.geomspace(2e9, 6e10, 24)[rng.permutation(24)]}
    numbers = {"params_active": active, "tokens": table["tokens"], "expert_ratio": experts}
    return {**table, "loss": get_law("ludziejewski2025").loss(None, numbers), **more}


@pytest.mark.parametrize(
    ("factor", "unit", "mend"), [(1e-3, "thousands", "1000"), (1e-6, "millions", "1e6"), (1e-9, "billions", "1e9")]
)
@pytest.mark.parametrize("experts", [("n_experts",), ("n_experts", "top_k"), ("sparsity",), ()])
def test_active_parameters_in_another_unit_than_all(factor, unit, mend, experts) -> None:
    """A column that looks plausible by itself, beside tokens; the other shows that it is in another unit."""
    table = moe(factor, sparsity=1 - 1 / np.tile([1.0, 4, 8, 32], 6))
    for name in {"n_experts", "top_k", "sparsity"} - set(experts):
        del table[name]
    units = [str(finding) for finding in check_table(table) if finding.check == "units"]
    if not experts and factor == 1e-3:
        assert units == []  # experts may be a thousand times those in use
        return
    assert len(units) == 1
    assert f"look like {unit}" in units[0]
    assert units[0].endswith(f"--let 'params_active = {mend} * params_active'")
    assert not [finding for finding in check_table(table) if finding.check == "sizes"]
    mended = {**table, "params_active": np.asarray(table["params_active"]) / factor}
    assert not [str(finding) for finding in check_table(mended) if finding.check in ("units", "sizes")]


def test_sizes_in_another_unit_than_those_beside_them_reach_fit_and_prediction() -> None:
    fitted = fit(moe(1e-6), "ludziejewski2025", bootstrap=0, starts=4)
    assert any("look like millions" in note for note in fitted.notes)
    assert any(
        "look like millions" in note for note in predict(fitted, params_active=500, n_experts=8, tokens=1e10).notes
    )
    both = {"params_active": 484.9, "params_total": 9.5e9, "n_experts": 32.0, "top_k": 1.0, "tokens": 2e10}
    assert any("looks like millions" in note for note in predict("ludziejewski2025", **both).notes)


def test_active_parameters_that_are_not_those_of_the_model() -> None:
    dense = moe()
    dense["params_total"] = np.where(dense["n_experts"] == 1, 1.3, 1.0) * dense["params_total"]
    text = found(dense)["sizes"]
    assert text.startswith("params_active is below params_total in 6 of 24 rows, rows 1, 5, 9, 13, 17, ... (0.7692 of")
    few = moe()
    few["params_total"] = np.where(few["n_experts"] == 4, 3.0, 1.0) * few["params_total"]
    assert found(few)["sizes"].startswith("params_total is 8.4 times params_active in row ")
    assert "4 times as many experts as are in use explain no more than that factor (6 of 24 rows" in found(few)["sizes"]
    assert "sizes" not in found(moe())
