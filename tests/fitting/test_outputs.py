"""Where `moelab fit` and `isoflop` write is checked before the work."""

import pytest

import moelab
from moelab.cli.outputs import FIGURES, check_output
from moelab.errors import InputError
from moelab.report.save import save_figure


def test_places_that_cannot_be_written_are_refused(tmp_path) -> None:
    (tmp_path / "ok.csv").write_text("x")
    for name, message in (
        ("x.txt", "--plot: expected a name that ends in .svg"),
        ("ok.csv/deep/f.svg", "ok.csv is a file, not a folder"),
        (".", "expected a name"),
    ):
        with pytest.raises(InputError, match=message):
            check_output(str(tmp_path / name), "--plot", FIGURES)
    with pytest.raises(InputError, match="--out: expected a file"):
        check_output(str(tmp_path), "--out")
    check_output(str(tmp_path / "new" / "deep" / "f.svg"), "--plot", FIGURES)
    check_output(None, "--plot", FIGURES)


def test_the_endings_are_those_that_figures_have(tmp_path) -> None:
    with pytest.raises(InputError, match=", ".join(FIGURES)):
        save_figure(None, tmp_path / "x.txt")


def test_a_law_of_dense_models_is_noted_where_it_predicts_a_moe_model(clean) -> None:
    fitted = moelab.fit(clean, "hoffmann2022", bootstrap=0, starts=2)
    for dense in ({}, {"params_active": 1e9, "n_experts": 1}):
        notes = moelab.predict(fitted, params_total=1e9, tokens=1e10, **dense).notes
        assert not any("dense" in note for note in notes)
    for more in ({"n_experts": 8}, {"params_active": 2e8}, {"sparsity": 0.9}):
        notes = moelab.predict(fitted, params_total=1e9, tokens=1e10, **more).notes
        assert any(note.startswith("hoffmann2022 describes dense models only, and ") for note in notes)
