"""The example in the docstring of every function at the top of moelab runs and shows what it says."""

import doctest
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import moelab

FUNCTIONS = ("plan", "fit", "predict", "compare", "compare_laws", "count", "serving_cost")
"""Functions whose examples stand alone and need no torch."""
CHAIN = ("prepare", "train", "load_run")
"""Examples of which each goes on where the one before it ended."""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(tmp_path)
    yield
    os.chdir(before)


def run_example(name: str) -> None:
    function = getattr(moelab, name)
    found = doctest.DocTestFinder(recurse=False).find(function, name, globs={})
    assert [test for test in found if test.examples], f"moelab.{name} has no example"
    for test in found:
        report: list[str] = []
        result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=report.append)
        assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_example_that_stands_alone(name: str, here: None) -> None:
    run_example(name)


def test_the_examples_from_text_to_a_run(here: None) -> None:
    pytest.importorskip("torch")
    for name in CHAIN:
        run_example(name)


@pytest.mark.slow
def test_the_example_of_a_study(here: None) -> None:
    for name in ("prepare", "run_study"):
        run_example(name)


@pytest.mark.slow
def test_the_example_of_an_export(here: None) -> None:
    pytest.importorskip("transformers")
    for name in (*CHAIN, "export_run"):
        run_example(name)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CHAIN, "export_run", "run_study"])
def test_a_docstring_names_every_argument(name: str) -> None:
    function = getattr(moelab, name)
    text = function.__doc__ or ""
    for part in ("Args:", "Returns:", "Raises:"):
        assert part in text, f"moelab.{name}: no {part}"
    for argument in inspect.signature(function).parameters:
        assert f"        {argument}: " in text or f"        **{argument}: " in text, f"moelab.{name}: {argument}"
