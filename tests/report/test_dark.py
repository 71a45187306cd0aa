"""Dark figures: every colour of the house has a counterpart, and all of them can be read on the card behind them."""

import pytest

from moelab.report import theme
from moelab.report.dark import DARK_COLORS

CARD = DARK_COLORS["white"]
TEXT = [theme.INK, theme.MUTED]
FAINT = ["white", "#fbfbfa", "#e6e9ed", "#d3d8de", "#aab2bc", "#9aa3ad", "#f0c6a4"]
"""Paper, grid lines, bands and heat-map ends, which carry no words."""


def luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_contrast_of_known_pairs() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("colour", [c for c in DARK_COLORS if c not in FAINT])
def test_marks_and_their_names_can_be_read_in_the_dark(colour: str) -> None:
    assert contrast(DARK_COLORS[colour], CARD) >= 4.5


@pytest.mark.parametrize("colour", TEXT)
def test_words_can_be_read_in_the_light(colour: str) -> None:
    assert contrast(colour, "#ffffff") >= 4.5


def test_every_colour_of_the_house_is_known() -> None:
    named = {theme.INK, theme.MUTED, theme.RULE, theme.GRID, theme.MOE, theme.DENSE, *theme.LAW_COLORS}
    assert named | set(theme.ordered_colors(6)) <= set(DARK_COLORS)


def test_groups_with_an_order_keep_it() -> None:
    levels = [luminance(DARK_COLORS[colour]) for colour in theme.ordered_colors(6)]
    assert levels == sorted(levels)
