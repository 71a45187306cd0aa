"""Names beside marks cover neither marks nor each other, stay inside, and keep off lines where they can."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.report.labels import Point, place_names

WIDTH, HEIGHT = 350.0, 300.0
POINTS = st.lists(st.tuples(st.floats(5, WIDTH - 5), st.floats(5, HEIGHT - 5)), min_size=1, max_size=14)


def boxes(marks: list[Point], names: list[str], places: list[Point | None]) -> list[tuple[float, float, float, float]]:
    """Every name's and every mark's box: left, bottom, right, top."""
    named = [(x, y - 5, x + 6 * len(n), y + 5) for n, at in zip(names, places, strict=True) if at for x, y in [at]]
    return named + [(x - 4.9, y - 4.9, x + 4.9, y + 4.9) for x, y in marks]


@given(marks=POINTS, name=st.text("0123456789K", min_size=1, max_size=11))
def test_names_cover_nothing(marks: list[Point], name: str) -> None:
    names = [name] * len(marks)
    places = place_names(marks, names, marks, [], WIDTH, HEIGHT)
    n_named = sum(at is not None for at in places)
    found = boxes(marks, names, places)
    for i, (left, bottom, right, top) in enumerate(found[:n_named]):
        assert left >= 0
        assert bottom >= 0
        assert top <= HEIGHT
        for j, other in enumerate(found):
            apart = right <= other[0] or other[2] <= left or top <= other[1] or other[3] <= bottom
            assert i == j or apart


def test_a_name_stands_right_of_its_mark_else_where_there_is_room() -> None:
    (free,) = place_names([(100, 100)], ["1.6M"], [(100, 100)], [], WIDTH, HEIGHT)
    assert free == (109, 100)
    beside = [(100.0, 100.0), (120.0, 100.0)]
    (left, _) = place_names(beside, ["1.6M", "1.6M"], beside, [], WIDTH, HEIGHT)
    assert left is not None
    assert left[0] + 6 * 4 == pytest.approx(91)


def test_a_name_steps_off_a_line() -> None:
    (place,) = place_names([(100, 100)], ["1.6M"], [(100, 100)], [[(100, 100), (300, 100)]], WIDTH, HEIGHT)
    assert place is not None
    assert place != (109, 100)


def test_a_name_without_a_place_is_left_out() -> None:
    crowd = [(float(x), float(y)) for x in range(0, 350, 8) for y in range(0, 300, 8)]
    assert place_names([(100, 100)], ["1.6M"], crowd, [], WIDTH, HEIGHT) == [None]
