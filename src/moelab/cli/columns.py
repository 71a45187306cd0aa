"""A table cut to a terminal's width: cells break between words, and columns that do not fit stand in a further block.

Numbers are never broken. A long name breaks behind `/`, `_` and `,`, anything else only where it alone is too wide.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_GAPS = (2, 1)
"""Blanks between two columns: fewer where the table then needs fewer blocks."""
_WHOLE = 12
"""A word up to this long is never broken."""
_WIDEST = 40
"""What stands in the first column is broken beyond this many characters."""


@dataclass(frozen=True)
class Block:
    """Columns beside each other: positions in the table, widths, blanks between, headings and rows of cells."""

    columns: list[int]
    widths: list[int]
    gap: int
    headings: list[str]
    rows: list[list[str]]


def blocks(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[Block]:
    """The table in blocks of at most `width` characters, each led by the first column; cells wrapped by newlines.

    A block is wider only where its first column and one more need it.
    """
    columns = [[heading, *(row[i] for row in rows)] for i, heading in enumerate(headings)]
    least = [max(_least(cell, first=i == 0 and row > 0) for row, cell in enumerate(c)) for i, c in enumerate(columns)]
    most = [max(_length(cell) for cell in column) for column in columns]
    gap, parts = min(((gap, _parts(least, width, gap)) for gap in _GAPS), key=lambda found: len(found[1]))
    return [_block(part, gap, columns, least, most, width) for part in parts]


def _parts(least: list[int], width: int, gap: int) -> list[list[int]]:
    """The columns of each block: as many as fit, and the first in all."""
    parts = [[0]]
    for i in range(1, len(least)):
        if len(parts[-1]) > 1 and sum(least[j] + gap for j in parts[-1]) + least[i] > width:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _block(part: list[int], gap: int, columns: list[list[str]], least: list[int], most: list[int], width: int) -> Block:
    widths = _shared([least[i] for i in part], [most[i] for i in part], width - gap * (len(part) - 1))
    cells = [[_wrapped(cell, w) for cell in columns[i]] for i, w in zip(part, widths, strict=True)]
    headings, *rows = map(list, zip(*cells, strict=True))
    return Block(part, widths, gap, headings, rows)


def _shared(least: list[int], most: list[int], room: int) -> list[int]:
    """Widths between `least` and `most` that sum to `room` where they can; the narrower wishes are met first."""
    widths, left = list(least), room - sum(least)
    wishes = sorted(range(len(least)), key=lambda i: most[i] - least[i])
    for met, i in enumerate(wishes):
        more = min(most[i] - least[i], max(left, 0) // (len(wishes) - met))
        widths[i] += more
        left -= more
    return widths


def _least(cell: str, first: bool) -> int:
    """The narrowest column for a cell; names in the first column stay on one line."""
    longest = max((_length(piece.strip()) for piece in _pieces(cell)), default=0)
    return max(longest, min(_length(cell), _WIDEST)) if first else longest


def _wrapped(cell: str, width: int) -> str:
    """The cell as lines of at most `width`, broken between pieces; a piece that alone is wider stays whole."""
    lines = [""]
    for piece in _pieces(cell):
        if lines[-1] and _length(lines[-1] + piece) > width:
            lines.append("")
        lines[-1] += piece if lines[-1] or len(lines) == 1 else piece.lstrip()
    return "\n".join(lines)


def _pieces(cell: str) -> list[str]:
    """Between two of them a cell may break: words with the blanks before them, long names behind `/`, `_` and `,`."""
    words = re.findall(r"\s*\S+", cell.rstrip())
    return [piece for word in words for piece in (_cut(word) if _length(word.strip()) > _WHOLE else [word])]


def _cut(word: str) -> list[str]:
    return [word] if re.match(r"\s*[~$+-]?\d", word) else re.findall(r"[^/_,]*[/_,]+|[^/_,]+", word)


def _length(text: str) -> int:
    """Columns of a terminal that a text takes."""
    from rich.cells import cell_len

    return cell_len(text)
