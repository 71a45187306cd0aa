"""Names beside marks: each finds a place of its own, off other names and marks, or is left out."""

import itertools
import math
from collections.abc import Sequence

Point = tuple[float, float]
"""Pixels from the panel's left edge and from its bottom."""

_LETTER, _HEIGHT = 6.0, 10.5  # of a name, in pixels
_MARK, _GAP = 5.0, 9.0  # half the side of a mark; from a mark's centre to its name
_BEYOND = 80.0  # so far a name may stand out of the panel, on its right
_SHIFTS = (0.0, 3.0, -3.0, 6.0, -6.0, 10.0, -10.0, 15.0, -15.0)
_CROSSING, _LEFT = 10.0, 6.0  # what a line through a name, and a name on the left, cost, in pixels off the mark
_SAMPLES = 40

Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


def place_names(
    anchors: Sequence[Point],
    names: Sequence[str],
    marks: Sequence[Point],
    lines: Sequence[Sequence[Point]],
    width: float,
    height: float,
) -> list[Point | None]:
    """Where the left end of each name's middle goes; None for one that would cover a name, a mark, or the axes.

    The first names choose first. A name stands right of its anchor if it can, else left, above or below, and off the
    lines where that is possible.
    """
    on_lines = [_sampled(a, b) for line in lines for a, b in itertools.pairwise(line)]
    taken: list[Box] = [(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in marks]
    places: list[Point | None] = []
    for anchor, name in zip(anchors, names, strict=True):
        costs = {
            box: cost + _CROSSING * sum(any(_inside(point, box) for point in points) for points in on_lines)
            for cost, box in _candidates(anchor, _LETTER * len(name))
            if not _outside(box, width, height) and not any(_overlap(box, other) for other in taken)
        }
        if not costs:
            places.append(None)
            continue
        best = min(costs, key=costs.__getitem__)
        taken.append(best)
        places.append((best[0], (best[1] + best[3]) / 2))
    return places


def _candidates(anchor: Point, length: float) -> list[tuple[float, Box]]:
    """Places around a mark, each with what it costs to be off its right side, in pixels."""
    x, y = anchor
    half = _HEIGHT / 2
    over = _MARK + half + 2
    places = [(abs(dy), x + _GAP, y + dy) for dy in _SHIFTS]
    places += [(_LEFT + abs(dy), x - _GAP - length, y + dy) for dy in _SHIFTS]
    places += [(over, x - length / 2, y + dy) for dy in (over, -over)]
    return [(cost, (left, middle - half, left + length, middle + half)) for cost, left, middle in places]


def _outside(box: Box, width: float, height: float) -> bool:
    left, bottom, right, top = box
    return left < 0 or bottom < 0 or right > width + _BEYOND or top > height


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _inside(point: Point, box: Box) -> bool:
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


def _sampled(a: Point, b: Point) -> list[Point]:
    steps = max(2, min(_SAMPLES, math.ceil(math.dist(a, b) / 4)))
    return [(a[0] + (b[0] - a[0]) * i / steps, a[1] + (b[1] - a[1]) * i / steps) for i in range(steps + 1)]
