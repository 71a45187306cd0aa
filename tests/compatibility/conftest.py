"""What version 0.1 wrote and answered (tests/fixtures/v0_1), and how today's answers are held against it."""

import importlib.util
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from moelab.cli import main

HERE = Path(__file__).parent
V0_1 = HERE.parent / "fixtures" / "v0_1"
GOES_ON, FROM_THE_START = 1e-3, 0.05
"""Relative tolerances of losses where other kernels round otherwise: of a run that goes on from a checkpoint of 0.1,
whose routes are settled (1e-5 was seen), and of one trained from its start, whose first routes may flip (0.03 was
seen)."""

LOSSES = ("loss", "train_loss", "bits_per_byte")
TRAINED = {*LOSSES, "weights", "loss_by_source", "loss_curve", "routing", "expert_load", "spikes", "spike_steps"}
"""Fields of a record that the last bits of the arithmetic may change."""


@pytest.fixture(scope="session")
def v0_1() -> Path:
    """The folder made by 0.1. Read only."""
    return V0_1


@pytest.fixture(scope="session")
def reading() -> ModuleType:
    """tests/compatibility/reading.py, which 0.1 ran too."""
    spec = importlib.util.spec_from_file_location("reading", HERE / "reading.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def answer() -> Callable[[str], Any]:
    """A function of a name: what 0.1 answered."""
    return lambda name: json.loads((V0_1 / "answers" / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def from_the_start() -> float:
    """The tolerance of `same_outcome` for runs that are trained from their start."""
    return FROM_THE_START


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: ModuleType) -> Path:
    """A copy of the folder to work in, the studies with their prepared text; the current directory."""
    place = tmp_path / "v0_1"
    shutil.copytree(V0_1, place)
    reading.set_text_time(place / "texts.jsonl")
    for study in (place / "studies").iterdir():
        shutil.copytree(place / "prepared", study / "data")
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """A function of the words of a command with --json: its JSON."""

    def call(*words: str) -> Any:
        with pytest.raises(SystemExit) as stop:
            main([*words])
        out = capsys.readouterr()
        assert not stop.value.code, out.err
        return json.loads(out.out)

    return call


def unlike(old: Any, new: Any, relative: float, place: str = "") -> list[str]:
    """Where `new` lacks a key of `old`, or has another number; text may differ and new keys may be there."""
    if isinstance(old, dict) and isinstance(new, dict):
        gone = [f"{place}.{key}: gone" for key in old if key not in new]
        inner = [unlike(old[key], new[key], relative, f"{place}.{key}") for key in old if key in new]
        return [*gone, *(each for part in inner for each in part)]
    if isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            return [f"{place}: {len(old)} entries, now {len(new)}"]
        pairs = enumerate(zip(old, new, strict=True))
        return [each for number, (a, b) in pairs for each in unlike(a, b, relative, f"{place}[{number}]")]
    if isinstance(old, str) and isinstance(new, str):
        return []
    if isinstance(old, int | float) and isinstance(new, int | float) and isinstance(old, bool) == isinstance(new, bool):
        near = math.isclose(old, new, rel_tol=relative, abs_tol=1e-12 if relative else 0.0)
        return [] if near else [f"{place}: {old!r}, now {new!r}"]
    return [] if old is None and new is None else [f"{place}: {str(old)[:60]}, now {str(new)[:60]}"]


@pytest.fixture(scope="session")
def same_numbers() -> Callable[..., None]:
    """Asserts that all keys and numbers of an answer of 0.1 are there still.

    Formulas are held to 1e-9, not to the bit: NumPy's exponentials differ between processors.
    """

    def check(old: Any, new: Any, relative: float = 1e-9) -> None:
        assert unlike(old, new, relative) == []

    return check


def gone(old: Any, new: Any, place: str = "") -> list[str]:
    """Keys of `old` that `new` lacks; of lists the first entries are compared."""
    if isinstance(old, list) and isinstance(new, list):
        return gone(old[0], new[0], f"{place}[0]") if old and new else []
    if not isinstance(old, dict) or not isinstance(new, dict):
        return []
    lost = [f"{place}.{key}" for key in old if key not in new]
    inner = [gone(old[key], new[key], f"{place}.{key}") for key in old if key in new]
    return [*lost, *(each for part in inner for each in part)]


@pytest.fixture(scope="session")
def same_keys() -> Callable[..., None]:
    """Asserts that all keys of an answer of 0.1 are there still; its numbers may be others."""

    def check(old: Any, new: Any) -> None:
        assert gone(old, new) == []

    return check


@pytest.fixture(scope="session")
def same_kernels(reading: ModuleType, answer: Callable[[str], Any]) -> bool:
    """Whether PyTorch, the vector instructions and the compiled kernels are those that 0.1 ran with."""
    return bool(reading.kernels() == answer("machine"))


@pytest.fixture(scope="session")
def same_outcome(same_kernels: bool) -> Callable[..., None]:
    """Asserts that a run ended as under 0.1.

    With the same kernels to the bit, the digest of the weights included. Elsewhere everything known before training is
    equal and the losses are within `relative`.
    """

    def check(old: dict[str, Any], new: dict[str, Any], relative: float = GOES_ON) -> None:
        old, new = dict(old), dict(new)
        notes = new.pop("notes", [])
        assert [note for note in old.pop("notes", []) if note not in notes] == []  # later versions note more
        if same_kernels:
            assert {key: new[key] for key in old} == old
            return
        known = {key: value for key, value in old.items() if key not in TRAINED and not key.startswith("routing_")}
        assert {key: new[key] for key in known} == known
        for name in LOSSES:
            assert new[name] == pytest.approx(old[name], rel=relative)

    return check
