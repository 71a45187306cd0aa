"""The terminal output of a study where there is no terminal."""

import time

import pytest

from moelab.executors import Board
from moelab.executors.display import Display


def test_one_line_a_minute_shows_where_a_study_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    board = Board(
        total=10,
        failed={"x": "no"},
        names={"x": "a bad run"},
        running={"a": {"step": 5, "steps": 10, "loss": 3.0, "tokens_per_second": 4000.0}, "b": {}},
        done_flops=3.0,
        total_flops=10.0,
    )
    display = Display(quiet=True)
    display.board(board)
    display.console.quiet = False
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    display.board(board)
    assert "0/10 runs done, 2 running" in capsys.readouterr().err
    assert display.summary(board).startswith("0/10 runs done, 2 running, 1 failed, 4.0k tokens/s, 30% of the work")
