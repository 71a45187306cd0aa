"""Damaged JSON in every file that moelab reads: one line, whatever reads it, and never a traceback."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moelab.claim import claim_path, find
from moelab.data import Dataset
from moelab.data.classes import token_classes
from moelab.errors import InputError
from moelab.export.gguf_tokenizer import gguf_tokenizer
from moelab.export.place import NOTE, check_folder
from moelab.fitting.fit_file import load_fits
from moelab.runs import RunFolder
from moelab.runs.folder import FAILURE, PROGRESS
from moelab.runs.table import load_table
from moelab.training.checkpoint import load_newest

DAMAGED = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep, but not for Python's reader": '{"a":' * 300 + "1" + "}" * 300,
    "an endless whole number": '{"a": ' + "1" * 9000 + "}",
    "cut": '{"a": ',
}


@pytest.fixture(params=DAMAGED.values(), ids=DAMAGED.keys())
def damaged(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def one_line(read: Callable[[], object]) -> None:
    with pytest.raises(InputError) as caught:
        read()
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_tables(damaged: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(damaged)
    one_line(lambda: load_table(tmp_path / name))


def test_tables_with_brackets_in_text_are_read(tmp_path: Path) -> None:
    text = "[{" * 100 + '\\"' + "[" * 100
    (tmp_path / "x.jsonl").write_text(f'{{"a": "{text}", "b": 1}}\n{{"a": "", "b": 2}}\n')
    assert load_table(tmp_path / "x.jsonl")["b"].to_list() == [1.0, 2.0]
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(f'[{{"a": "{text}", "b": 1}}]'.encode()))
    assert load_table(tmp_path / "x.json.gz")["b"].to_list() == [1.0]


def test_csv_tables_quote_little_of_a_long_cell(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n" + "1" * 9000 + "\n")
    one_line(lambda: load_table(tmp_path / "x.csv"))


def test_fit_files(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "fit.json").write_text(damaged)
    one_line(lambda: load_fits(tmp_path / "fit.json"))
    (tmp_path / "fit.json").write_text('{"fits": {"hoffmann2022": ' + damaged + "}}")
    one_line(lambda: load_fits(tmp_path / "fit.json"))


def test_manifests_and_tokenizers(damaged: str, tiny_dataset: Dataset, tmp_path: Path) -> None:
    for name in ("manifest.json", "tokenizer.json"):
        place = tmp_path / name.removesuffix(".json")
        place.mkdir()
        for path in tiny_dataset.folder.iterdir():
            (place / path.name).write_bytes(path.read_bytes())
        dataset = Dataset.open(place)
        (place / name).write_text(damaged)
        one_line(lambda place=place: Dataset.open(place))
        if name == "manifest.json":
            continue
        one_line(lambda dataset=dataset: dataset.token_bytes)
        one_line(lambda dataset=dataset: token_classes(dataset))
        one_line(lambda place=place: gguf_tokenizer(place / "tokenizer.json", 300))
        one_line(dataset.verify)


@pytest.mark.parametrize(
    "change",
    [
        3,
        {"model": None},
        {"model": {"vocab": [], "merges": []}},
        {"model": {"vocab": {"a": "0"}, "merges": []}},
        {"model": {"vocab": {"a": 10**20}, "merges": []}},
        {"model": {"vocab": {"a": 999}, "merges": []}},
        {"added_tokens": 5},
        {"added_tokens": [{"id": 0}]},
        {"added_tokens": [{"id": "0", "content": 3, "special": True}]},
    ],
)
def test_tokenizers_of_another_form(change: object, tiny_dataset: Dataset, tmp_path: Path) -> None:
    for path in tiny_dataset.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    dataset = Dataset.open(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({**state, **change} if isinstance(change, dict) else change))
    one_line(lambda: dataset.token_bytes)
    one_line(lambda: token_classes(dataset))
    one_line(lambda: gguf_tokenizer(tmp_path / "tokenizer.json", 300))


def test_notes_of_exports(damaged: str, tmp_path: Path) -> None:
    (tmp_path / NOTE).write_text(damaged)
    one_line(lambda: check_folder(tmp_path, force=True))


def test_what_stands_beside_a_run(damaged: str, tmp_path: Path) -> None:
    """Its note of failure, its live numbers and its lease are never a reason to fail."""
    folder = RunFolder(tmp_path)
    for content in (damaged, "[1]", "3", "null", '"x"'):
        (tmp_path / FAILURE).write_text(content)
        (tmp_path / PROGRESS).write_text(content)
        assert folder.load_failure() == "unknown: its note cannot be read"
        assert folder.load_progress() == {}


def test_leases(damaged: str, tmp_path: Path) -> None:
    place = tmp_path / ".lease"
    for content in (damaged, "[1]", "3", '{"beat": "x", "pid": [1], "host": 3, "unknown": 1}'):
        claim_path(place, 1).write_text(f"5\n{content}\n")
        claim = find(place)
        assert claim is not None
        assert (claim.beat, claim.pid, claim.free, claim.surely_alive) == (0.0, 0, False, False)


def test_checkpoints(damaged: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "00000005").mkdir(parents=True)
    (tmp_path / "checkpoints" / "00000005" / "state.json").write_text(damaged)
    found, notes = load_newest(tmp_path / "checkpoints", "0123456789abcdef")
    assert found is None
    assert len(notes) == 1
    assert "damaged" in notes[0]
