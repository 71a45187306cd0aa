"""Tables of fits and slices on narrow terminals: titles above them, notes below, every number whole."""

import numpy as np
import pytest

from moelab.cli.fit_tables import print_comparison
from moelab.cli.isoflop_tables import print_budgets
from moelab.fitting import isoflop_budgets
from moelab.fitting.compare import compare_laws
from moelab.laws import get_law


@pytest.fixture(scope="module")
def compared():
    law, rng = get_law("hoffmann2022"), np.random.default_rng(0)
    size = np.geomspace(3e7, 1e9, 16)
    table = {"params_total": size, "tokens": size * rng.uniform(10, 80, 16)}
    table["loss"] = law.loss(None, table) * np.exp(0.003 * rng.standard_normal(16))
    return compare_laws(table, ["hoffmann2022", "besiroglu2024"], bootstrap=10, starts=4, holdout_optional=False)


@pytest.mark.parametrize("width", [60, 80])
def test_long_titles_leave_the_columns_their_room(compared, capsys, monkeypatch, width) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_comparison(compared)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    lines = [line.split() for line in text.splitlines()]
    for found in compared.differ_most:
        assert f"where the laws differ most {found.where}" in " ".join(text.split())
        assert all([name, f"{value:.4f}"] in lines for name, value in found.predictions.items())
    influence = next(iter(compared.fits.values())).influence
    assert ["without", "runs", influence.quantity, "change"] in lines
    assert all(sum(line[:2] == each.label.split() for line in lines) for each in influence.left)


def test_notes_on_budgets_stand_below_their_table(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    size = np.geomspace(1e8, 1e9, 9)
    flops = np.repeat([1e19, 1e20], 9)
    loss = 3 - 0.1 * np.log10(flops) + 0.04 * np.log(np.tile(size, 2) / 9.5e8) ** 2
    table = {"params_total": np.tile(size, 2), "train_flops": flops, "loss": loss}
    found = isoflop_budgets(table, "params_total", log=False)
    assert any(one.notes for one in found.slices.values())
    print_budgets(found, [], None)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [line.split()[:2] for line in lines[1:3]] == [["1e19", "9"], ["1e20", "9"]]
    notes = {note for one in found.slices.values() for note in one.notes}
    assert sum(line.startswith("note: at ") for line in lines) == len(found.slice_notes()) == len(notes)
