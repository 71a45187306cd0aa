"""docs/presets.md is what the code generates."""

from pathlib import Path

import pytest

from moelab.architecture.released import released_models

PAGE = Path(__file__).parents[2] / "docs" / "presets.md"


def test_the_page_is_current() -> None:
    pytest.importorskip("torch")
    from moelab.export.presets_page import presets_markdown

    assert PAGE.read_text(encoding="utf-8") == presets_markdown(), "run moelab presets --markdown > docs/presets.md"


def test_every_preset_has_a_row() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| {name} | " in text for name in released_models())
