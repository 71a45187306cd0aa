"""`moelab.compare` compares designs, as the command does; a call with laws is answered with the function for them."""

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

import moelab
from moelab.architecture import count_flops
from moelab.cli import main
from moelab.cli.output import print_json

TABLE = {"loss": [2.0, 1.9], "tokens": [1e9, 2e9], "params_total": [1e8, 1e8]}


def as_json(capsys: pytest.CaptureFixture[str], value: Any) -> Any:
    print_json(value)
    return json.loads(capsys.readouterr().out)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    with pytest.raises(SystemExit):
        main(["compare", *words, "--json"])
    return json.loads(capsys.readouterr().out)


def test_the_function_gives_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    alone = moelab.compare("olmoe-1b-7b", flops="1e22", unique_tokens="100B")
    words = ("olmoe-1b-7b", "--flops", "1e22", "--unique-tokens", "100B")
    assert as_json(capsys, alone.to_dict()) == printed(capsys, *words)
    two = moelab.compare("mixtral-8x7b", "llama3-8b", hardware="h100", laws=["ludziejewski2025", "abnar2025"])
    words = ("mixtral-8x7b", "llama3-8b", "--hardware", "h100", "--law", "ludziejewski2025", "--law", "abnar2025")
    assert as_json(capsys, two.to_dict()) == printed(capsys, *words)


def test_prices_have_their_interval_and_calibration() -> None:
    """Every predicted price of the table stands with its 80 % interval; a line names where it comes from."""
    result = moelab.compare("mixtral-8x7b", hardware="h100", laws=["ludziejewski2025"])
    rows = {row[0]: row[1:] for row in result.rows()}
    for cell in (*rows["output tokens per second, 80 %"], *rows["$ per million tokens, 80 %"]):
        assert cell.split(" ", 1)[1].startswith("[")
    assert any(line.startswith("Calibration of prices: serving, h100/") for line in result.notes())


def test_designs_of_every_kind_side_by_side(tmp_path: Any) -> None:
    dense = moelab.load_model("llama3-8b")
    (tmp_path / "dense.yaml").write_text(yaml.safe_dump(dense.to_dict()))
    plan = moelab.plan(moelab.Budget(flops=1e19), ["ludziejewski2025"], moelab.Space(d_model=[512], n_experts=[8]))
    result = moelab.compare(dense, "mixtral-8x7b", str(tmp_path / "dense.yaml"), tmp_path / "dense.yaml", plan.best)
    assert len(result.sides) == 5
    assert len(result.differences) == 4
    assert result.sides[0].params_total == result.sides[2].params_total == result.sides[3].params_total
    assert result.sides[4].name == plan.best.label


@pytest.mark.parametrize(
    "arguments",
    [
        (TABLE,),
        (pl.DataFrame(TABLE),),
        ([{"loss": 2.0}],),
        ("runs.csv",),
        (np.zeros(3),),
        (TABLE, ["besiroglu2024"]),
        ("runs.csv", ["besiroglu2024"]),
    ],
)
@pytest.mark.parametrize("options", [{}, {"laws": ["besiroglu2024"]}])
def test_the_call_with_laws_names_the_function_for_them(
    arguments: Any, options: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame(TABLE).write_csv("runs.csv")
    with pytest.raises(moelab.InputError, match=r"laws are compared by moelab\.compare_laws\(table, laws\)") as refused:
        moelab.compare(*arguments, **options)
    assert "\n" not in str(refused.value)


def test_a_folder_of_runs_is_no_design(tmp_path: Any) -> None:
    with pytest.raises(moelab.InputError, match="compare_laws"):
        moelab.compare(str(tmp_path), laws=["besiroglu2024"])


def test_no_design_at_all_is_refused() -> None:
    with pytest.raises(moelab.InputError, match="compare: needs a design"):
        moelab.compare()


def test_one_quantity_may_be_given_as_a_string() -> None:
    sides = moelab.compare("olmoe-1b-7b", equal="unique_tokens").sides
    assert [side.name for side in sides] == [
        side.name for side in moelab.compare("olmoe-1b-7b", equal=["unique_tokens"]).sides
    ]
    with pytest.raises(moelab.InputError, match="'parms'"):
        moelab.compare("olmoe-1b-7b", equal="parms")


def test_flops_of_the_causal_half() -> None:
    full, half = (moelab.compare("olmoe-1b-7b", "llama3-8b", seq_len=8192, causal=causal) for causal in (False, True))
    for one, other in zip(full.sides, half.sides, strict=True):
        assert other.flops_per_token == count_flops(one.config, 8192, causal=True).train < one.flops_per_token
        assert other.tokens > one.tokens
        assert other.train_flops == pytest.approx(one.train_flops)
    assert (full.to_dict()["flops_convention"], half.to_dict()["flops_convention"]) == ("full square", "causal half")
    assert half.rows()[2][0] == "training FLOPs per token (causal half)"
    alone = moelab.compare("olmoe-1b-7b", causal=True, equal="flops").sides
    assert alone[0].flops_per_token < moelab.compare("olmoe-1b-7b").sides[0].flops_per_token


def test_a_folder_with_a_config_json_is_a_design(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mixtral", "num_hidden_layers": 4}')
    assert moelab.compare(str(tmp_path), "mixtral-8x7b", flops=1e20).sides[0].config.n_layers == 4
