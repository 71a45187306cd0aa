"""Tables on narrow terminals: words and numbers stay whole, columns that do not fit stand below."""

import pytest

from moelab.cli.columns import blocks
from moelab.cli.output import print_table

HEADINGS = ["", "active/total", "experts", "d_expert", "loss by fivefactor2025", "variables"]
ROWS = [
    ["1", "3.53B/50.9B", "160 top-8", "1536", "2.287 (4.8x)", "params_active_non_embedding, expert_ratio"],
    ["the best dense model", "3.23B/3.23B", "dense", "-", "2.31", "params_total, tokens"],
]


@pytest.mark.parametrize("width", [44, 50, 60, 80, 100, 150])
def test_every_word_and_number_stays_whole_within_the_width(width: int) -> None:
    found = blocks(HEADINGS, ROWS, width)
    for block in found:
        assert sum(block.widths) + block.gap * (len(block.widths) - 1) <= width
        for place, column in enumerate(block.columns):
            for cell, text in zip(
                (block.headings[place], *(row[place] for row in block.rows)),
                (HEADINGS[column], *(row[column] for row in ROWS)),
                strict=True,
            ):
                lines = cell.split("\n")
                assert all(len(line) <= block.widths[place] for line in lines)
                assert "".join("".join(lines).split()) == "".join(text.split())
                assert all(word in cell.split() for word in text.split() if len(word) <= 12 or word[0].isdigit())
                assert all(line[-1] in "/_," or f"{line} " in text for line in lines[:-1])
    assert {column for block in found for column in block.columns} == set(range(len(HEADINGS)))
    assert all(block.columns[0] == 0 for block in found)


def test_a_table_that_fits_is_one_block_as_wide_as_its_cells() -> None:
    (block,) = blocks(HEADINGS, ROWS, 200)
    assert block.widths == [max(len(row[i]) for row in [HEADINGS, *ROWS]) for i in range(len(HEADINGS))]
    assert block.rows == ROWS


def test_columns_move_together_before_one_goes_below() -> None:
    headings, rows = ["a", "bbbb", "cccc"], [["1", "2222", "3333"]]
    assert [(b.gap, b.columns) for b in blocks(headings, rows, 13)] == [(2, [0, 1, 2])]
    assert [(b.gap, b.columns) for b in blocks(headings, rows, 11)] == [(1, [0, 1, 2])]
    assert [(b.gap, b.columns) for b in blocks(headings, rows, 10)] == [(2, [0, 1]), (2, [0, 2])]


def test_a_long_heading_leaves_the_numbers_their_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table(["FLOPs of a token at 4,096 tokens of context", "", "share"], [["head", "206M", "7.1%"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["head", "206M", "7.1%"]
    assert max(map(len, lines)) <= 40
