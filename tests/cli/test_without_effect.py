"""An option that another leaves without effect is refused, or noted, in one line that names both."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import moelab
from moelab.cli import main


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("plan --flops 1e21 --context 1M", "--context: needs --max-memory"),
        ("plan --flops 1e21 --next-runs 2 --plot a.html", "--plot: contradicts --next-runs"),
        ("plan --flops 1e21 --next-runs 2 --top 3", "--top: contradicts --next-runs"),
        (
            "predict hoffmann2022 --set params_total=1e9 --set tokens=2e10 --seq-len 8192",
            "--seq-len: goes with --config",
        ),
        ("serving llama3-70b --hardware h200 --parallel expert", "--parallel: expert needs experts"),
        ("serving llama3-70b --hardware h200 --batch 8 --max-batch 4", "--max-batch: contradicts batch"),
        ("fit runs.csv --check --bootstrap 50", "--bootstrap: --check fits nothing"),
        ("fit runs.csv --check --holdout-by budget", "--holdout-by: --check fits nothing"),
        ("isoflop runs.csv --x params_total --by width --tolerance 0.1", "--tolerance: goes with --by budget"),
    ],
)
def test_it_is_refused(
    words: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    size = np.geomspace(1e7, 1e8, 6)
    pl.DataFrame({"params_total": size, "tokens": 20 * size, "width": [1, 2] * 3, "loss": 9 / size**0.07}).write_csv(
        "runs.csv"
    )
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2
    assert f"error: {line}" in capsys.readouterr().err


def test_a_dense_model_in_mxfp4_is_served_and_headed_as_the_16_bits_that_it_is() -> None:
    asked = moelab.serving_cost("llama3-70b", "h200", precision="mxfp4")
    plain = moelab.serving_cost("llama3-70b", "h200")
    assert asked.title == plain.title
    assert "bf16" in asked.title
    assert {**asked.to_dict(), "warnings": []} == {**plain.to_dict(), "warnings": []}
    assert asked.warnings[1:] == plain.warnings
    assert asked.warnings[0].startswith("mxfp4 stores experts alone")
    assert "mxfp4" in moelab.serving_cost("mixtral-8x7b", "h200", precision="mxfp4").title


@pytest.mark.parametrize(
    ("model", "options", "noted"),
    [
        ("llama3-70b", {}, True),
        ("mixtral-8x7b", {"gpus": 1, "precision": "fp8"}, True),
        ("mixtral-8x7b", {"gpus": 8, "parallel": "expert"}, False),
    ],
)
def test_an_imbalance_without_split_experts_is_noted(model: str, options: dict[str, object], noted: bool) -> None:
    plain = moelab.serving_cost(model, "h200", **options)  # type: ignore[arg-type]
    uneven = moelab.serving_cost(model, "h200", imbalance=3, **options)  # type: ignore[arg-type]
    same = uneven.cost_per_million_tokens == plain.cost_per_million_tokens
    assert same is noted
    assert any(line.startswith("imbalance 3 changes nothing") for line in uneven.warnings) is noted


def test_a_variable_that_no_law_reads_is_noted() -> None:
    notes = moelab.predict("hoffmann2022", params_total=7e9, tokens=1.4e11, unique_tokens=1e9).notes
    assert notes == ("unique_tokens: no law here reads it",)


def test_a_device_is_known_in_any_case() -> None:
    assert moelab.serving_cost("mixtral-8x7b", "H200").device == moelab.serving_cost("mixtral-8x7b", "h200").device


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--tpot 40", "plan: --tpot: expected a time"),
        ("--serve-gpus 0", "plan: --serve-gpus: "),
        ("--gpu-price x", "plan: --gpu-price: expected a number"),
        ("--ttft 1parsec", "plan: --ttft: expected a number such as 50ms (suffixes: s, ms, us, min, h, d)"),
    ],
)
def test_errors_of_the_traffic_name_the_option(words: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "--flops", "1e21", "--hardware", "h200", *words.split()])
    assert capsys.readouterr().err.startswith(f"error: {line}")


@pytest.mark.parametrize("top_k", [1, 2, 8])
def test_experts_in_use_are_read_with_all_experts(top_k: int) -> None:
    """One expert in use is a value as any other: the ratio of all to those in use is read from it."""
    found = moelab.predict("ludziejewski2025", params_active=1e9, tokens=2e10, n_experts=64, top_k=top_k)
    assert found.notes == ()
    alone = moelab.predict("hoffmann2022", params_total=1e9, tokens=2e10, top_k=top_k)
    assert "top_k: no law here reads it" in alone.notes
