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


def test_a_law_of_dense_models_predicts_no_moe_model(clean) -> None:
    fitted = moelab.fit(clean, "hoffmann2022", bootstrap=0, starts=2)
    dense = moelab.predict(fitted, params_total=1e9, tokens=1e10).only.value
    assert moelab.predict(fitted, params_total=1e9, tokens=1e10, params_active=1e9, n_experts=1).only.value == dense
    for more in ({"n_experts": 8}, {"params_active": 2e8}, {"sparsity": 0.9}):
        with pytest.raises(InputError, match=r"describes dense models only, and .* is a MoE model"):
            moelab.predict(fitted, params_total=1e9, tokens=1e10, **more)
