"""The reference study's figures: with few runs nothing is claimed and nothing fails; with enough, laws are compared."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from moelab.runs import run_columns
from moelab.runs.datasets import reference
from moelab.studies import load_study
from moelab.studies.build import preview

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def analysis() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import reference_analysis as module
    yield module
    for name in ("reference_analysis", "reference_findings", "reference_rates"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    """The rate runs that ship, then the first 24 runs of the reference study with losses of a power law."""
    rates = reference().filter(pl.col("study") == "reference-rates")
    assert len(rates) == 24
    rng, rows = np.random.default_rng(0), []
    for config in preview(load_study(str(ROOT / "configs" / "studies" / "reference.yaml")))["runs"][:24]:
        row = {name: value for name, value in run_columns(config).items() if name != "labels"}
        loss = 1.4 + 30 / row["params_active"] ** 0.3 + 90 / row["tokens"] ** 0.33 + 0.01 * rng.standard_normal()
        rows.append({"study": "reference", "run_id": str(len(rows)), **row, "loss": loss, "seconds": 1.0})
    return pl.concat([rates, pl.DataFrame(rows, infer_schema_length=None)], how="diagonal_relaxed")


def printed(analysis: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any, rows: pl.DataFrame, *words: str) -> str:
    monkeypatch.setattr(analysis, "reference", lambda: rows)
    monkeypatch.setattr(sys, "argv", ["reference_analysis.py", *words])
    analysis.main()
    return str(capsys.readouterr().out)


@pytest.mark.parametrize("count", [0, 1, 14])
def test_few_runs_claim_nothing(analysis, monkeypatch, capsys, table, count: int) -> None:
    text = printed(analysis, monkeypatch, capsys, table.head(24 + count))
    assert f"the study `reference` has {count} finished runs" in text
    assert "laws are compared from 15 on" in text
    assert "law: error" not in text
    assert "moelab2026" not in text
    assert "best learning rates" in text


@pytest.mark.slow
def test_a_first_part_is_compared_with_its_limits_named(analysis, monkeypatch, capsys, table, tmp_path: Path) -> None:
    text = printed(analysis, monkeypatch, capsys, table, "--bootstrap", "10", "--out", str(tmp_path))
    assert "runs are held out: these errors rank no laws yet" in text
    assert "share owed to the prior" in text
    assert (tmp_path / "fits.json").is_file()
    assert (tmp_path / "predicted.svg").is_file()


def test_a_pair_differs_in_one_thing_and_stands_beside_the_next_higher(analysis) -> None:
    base = {"d_model": 24, "tokens": 270_000, "params_active": 27_000, "epochs": 1.0, "seed": 0, "loss": 4.0,
            "router": "token_choice", "granularity": 2.0, "expansion": 8.0, "n_shared_experts": 0}  # fmt: skip
    finer = {**base, "granularity": 4.0, "params_active": 28_000, "tokens": 280_000, "loss": 3.9}
    finest = {**base, "granularity": 8.0, "loss": 3.95}
    other = {**finest, "epochs": 4.02, "loss": 4.1}
    dense = {**base, "router": None, "granularity": None, "expansion": None, "n_shared_experts": None, "loss": 4.2}
    import reference_findings as findings

    rows = findings.with_axes(pl.DataFrame([finest, base, finer, other, dense]))
    assert [(a["loss"], b["loss"]) for a, b in findings.pairs(rows, "granularity")] == [(4.0, 3.9), (3.9, 3.95)]
    assert [(a["loss"], b["loss"]) for a, b in findings.pairs(rows, "epochs")] == [(3.95, 4.1)]
    assert findings.pairs(rows, "shared") == findings.pairs(rows, "expansion") == []
