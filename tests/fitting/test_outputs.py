"""Where `moelab fit` and `isoflop` write is checked before the work."""

import pytest

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
