"""`moelab calibrate`: a table becomes a hardware file that `moelab serving` reads; wrong use is refused in one line."""

import json
from pathlib import Path

import pytest

from moelab.cli import main

HEAD = "model,hardware,precision,engine,gpus,input_length,output_length,concurrency,median_tpot_s\n"


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*words])
    return int(stop.value.code or 0)


@pytest.mark.slow
def test_a_table_becomes_a_hardware_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = tmp_path / "rows.csv", tmp_path / "mine.yaml"
    rows = [f"llama3-8b,h100,fp8,vllm,1,512,256,{batch},{0.004 + batch * 1e-4}\n" for batch in (1, 8, 32)]
    table.write_text(HEAD + "".join(rows))
    assert run("calibrate", str(table), "--out", str(out), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["calibration"]["held_out_by"] == "concurrency, and by model in the shipped rows"
    assert run("serving", "llama3-8b", "--hardware", str(out), "--batch", "8", "--gpus", "1", "--json") == 0
    served = json.loads(capsys.readouterr().out)
    assert served["calibration"]["id"] == "h100/vllm"
    assert served["time_per_output_token_low"] < served["time_per_output_token"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "h100"], "--device, --engine: choose among measured rows"),
        (["no.csv"], "no.csv"),
        (["--out", "mine.txt"], "--out: must end in .yaml"),
    ],
)
def test_wrong_use_is_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("calibrate", *words) == 2
    assert message in capsys.readouterr().err
