"""Figures as files: whole, of the kind their name asks for, refused by name otherwise."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from moelab.errors import InputError, MoelabError
from moelab.report.figures import candidates, learning_curves
from moelab.report.save import figure_svg, save_figure, slim_svg

HEADS = {"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF", "html": b"<!DOCTYPE html>", "json": b"{"}


@pytest.mark.parametrize("kind", HEADS)
def test_every_kind(demo: SimpleNamespace, kind: str, tmp_path: Path) -> None:
    path = save_figure(candidates(demo.CANDIDATES), tmp_path / f"figure.{kind}")
    content = path.read_bytes()
    assert content.startswith(HEADS[kind])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    if kind == "json":
        assert "vega-lite" in json.loads(content)["$schema"]
    if kind == "html":
        assert not re.search(rb'<(script|link)[^>]+(src|href)="http', content)


def test_unknown_ending(demo: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ends in \.svg, \.png, \.pdf, \.html, \.json, got '.*figure\.gif'"):
        save_figure(candidates(demo.CANDIDATES), tmp_path / "figure.gif")


def test_unwritable(demo: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MoelabError, match="cannot"):
        save_figure(candidates(demo.CANDIDATES), tmp_path / "file" / "figure.svg")


def test_slim_svg_keeps_every_word_and_visible_mark(demo: SimpleNamespace) -> None:
    chart = learning_curves(demo.CURVE)
    full, slim = figure_svg(chart), slim_svg(chart)
    words = re.compile(r">([^<>]+)</text>")
    assert words.findall(full) == words.findall(slim)
    assert slim.count('stroke="#0072b2"') == full.count('stroke="#0072b2"') > 0
    assert len(slim) < len(full) / 2
