"""The example of docs/fitting.md: a law outside the catalogue is named as missing, then added by a file and confirmed.

Sixty runs, ten of them repeats with another seed, from a law in which granularity and activation rate interact."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from moelab.cli import main
from moelab.laws import catalogue
from moelab.laws.law_keys import law_from_formula

PLAIN = "E_0 + (a + g / granularity**gamma) / params_active**alpha + b / tokens**beta"
OWN = {
    "id": "mine2026",
    "formula": f"{PLAIN} + k * log(granularity) * log(activation_rate)",
    "variables": ["params_active", "tokens", "granularity", "activation_rate"],
    "starts": {"alpha": [0.05, 1], "beta": [0.05, 1], "gamma": [0.1, 1.5]},
    "bounds": {"k": [-1, 1]},
}
TRUE = {"E_0": 1.5, "a": 20, "g": 8, "gamma": 0.6, "alpha": 0.2, "b": 30, "beta": 0.18, "k": -0.03}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    rng = np.random.default_rng(0)
    table = {
        "params_active": 10 ** rng.uniform(7.5, 9.5, 50),
        "tokens": 10 ** rng.uniform(9.5, 11.5, 50),
        "granularity": 2.0 ** rng.integers(0, 6, 50),
        "activation_rate": rng.choice([0.05, 0.1, 0.2, 0.5], 50),
    }
    table = {name: np.concatenate([values, values[:10]]) for name, values in table.items()}
    loss = law_from_formula(OWN).loss(TRUE, table) * np.exp(0.003 * rng.standard_normal(60))
    table |= {
        "params_total": table["params_active"] / table["activation_rate"],
        "n_experts": 1 / table["activation_rate"],
        "top_k": np.ones(60),
        "loss": loss,
        "seed": np.repeat([0, 1], [50, 10]),
    }
    path = tmp_path_factory.mktemp("missing") / "runs.csv"
    pl.DataFrame(table).write_csv(path)
    path.with_name("mine.yaml").write_text(yaml.safe_dump(OWN))
    return path


def call(capsys, *words: object) -> dict:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    assert not stop.value.code, printed.err
    return json.loads(printed.out)


@pytest.mark.slow
def test_no_law_of_the_catalogue_has_it_and_one_of_ones_own_does(runs, capsys, monkeypatch) -> None:
    monkeypatch.setattr(catalogue, "_OWN", {})
    few = ("--bootstrap", "20", "--starts", "4", "--json")
    without = call(capsys, "fit", runs, "--law", "all", *few)
    assert len(without["fits"]) >= 2
    misfit = without["findings"][-1]
    assert misfit["check"] == "misfit"
    assert misfit["text"].startswith("every law misses by")
    assert "granularity" in misfit["text"].split("residuals follow ")[1]
    assert misfit["mend"] == "add a law with --law-file"
    found = call(capsys, "fit", runs, "--law", "all", "--law-file", runs.with_name("mine.yaml"), *few)
    assert next(iter(found["fits"])) == "mine2026"
    assert found["weights"]["mine2026"] > 0.9
    own = found["fits"]["mine2026"]
    assert not [note for note in own["diagnosis"] if "misses by" in note or "residuals follow" in note]
    assert own["coefficients"]["k"]["low"] < TRUE["k"] < own["coefficients"]["k"]["high"] < 0
    assert not [each for each in found["findings"] if each["check"] == "misfit"]
    assert {each["where"] for each in found["differ_most"]} == {
        "among these runs",
        "at ten times their size and data",
    }
