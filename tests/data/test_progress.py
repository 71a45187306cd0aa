"""Progress without a terminal: a line for each stage, and one now and then while it lasts."""

import pytest

from moelab.data import progress
from moelab.data.progress import rich_report


@pytest.mark.parametrize(("seconds", "again"), [(0.0, True), (1e9, False)])
def test_a_long_stage_is_shown_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: float, again: bool
) -> None:
    monkeypatch.setattr(progress, "SECONDS", seconds)
    with rich_report() as report:
        report("encode [text]", 0, 8)
        report("encode [text]", 2, 8)
        report("train tokenizer", 1, 0)
        report("train tokenizer", 7000, 0)
    lines = capsys.readouterr().err.splitlines()
    expected = ["encode [text] ...", "encode [text] ... 25%", "train tokenizer ...", "train tokenizer ... 7,000"]
    assert [line for line in lines if line.strip()] == (expected if again else expected[::2])
