"""Prepared data is hashed once for each change of its files; ids beyond the vocabulary are one line."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moelab.data import Dataset, TrainBatches, ValidationBatches, integrity
from moelab.data.dataset import MANIFEST, Manifest
from moelab.data.integrity import STAMP
from moelab.errors import InputError


@pytest.fixture
def copy(dataset: Dataset, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(dataset.folder, tmp_path / "copy"))
    (folder / STAMP).unlink(missing_ok=True)
    return folder


def flip(path: Path, keep_time: bool = False) -> None:
    """Change one bit in place."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    with open(path, "r+b") as stream:
        stream.write(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_files_are_hashed_once_for_each_change(copy: Path) -> None:
    assert Dataset.open(copy).verify(always=False)
    assert not Dataset.open(copy).verify(always=False)
    assert Dataset.open(copy).verify()
    os.utime(copy / "train_00000.bin", ns=(1, 1))
    assert Dataset.open(copy).verify(always=False)
    moved = copy / "again.bin"
    shutil.copy2(copy / "train_00000.bin", moved)
    os.replace(moved, copy / "train_00000.bin")
    assert Dataset.open(copy).verify(always=False)
    assert not Dataset.open(copy).verify(always=False)


@pytest.mark.parametrize("name", ["train_00000.bin", "validation_00000.bin", "tokenizer.json"])
def test_a_flipped_bit_is_refused(copy: Path, name: str) -> None:
    Dataset.open(copy).verify(always=False)
    flip(copy / name)
    with pytest.raises(InputError, match=rf"{name} was changed: its hash is not the manifest's"):
        Dataset.open(copy).verify(always=False)


def test_a_change_under_the_same_time_is_found_where_hashing_is_asked_for(copy: Path) -> None:
    Dataset.open(copy).verify(always=False)
    flip(copy / "train_00000.bin", keep_time=True)
    Dataset.open(copy).verify(always=False)
    with pytest.raises(InputError, match="was changed"):
        Dataset.open(copy).verify()


def test_a_folder_found_damaged_stays_refused(copy: Path) -> None:
    Dataset.open(copy).verify()
    flip(copy / "train_00000.bin", keep_time=True)
    for always in (True, False, False):
        with pytest.raises(InputError, match=r"train_00000\.bin was changed"):
            Dataset.open(copy).verify(always=always)
    flip(copy / "train_00000.bin", keep_time=True)
    assert Dataset.open(copy).verify(always=False)


def test_a_changed_tokenizer_is_refused_by_whatever_opens_the_folder(copy: Path) -> None:
    flip(copy / "tokenizer.json")
    with pytest.raises(InputError, match=r"tokenizer\.json was changed"):
        Dataset.open(copy)


def test_held_out_tokens_are_hashed_where_they_are_measured(copy: Path) -> None:
    Dataset.open(copy).verify()
    flip(copy / "train_00000.bin", keep_time=True)
    Dataset.open(copy).verify_validation()
    flip(copy / "validation_00000.bin", keep_time=True)
    with pytest.raises(InputError, match=r"validation_00000\.bin was changed"):
        Dataset.open(copy).verify_validation()


def test_a_folder_that_cannot_be_written_is_hashed_once_in_a_process(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / STAMP).mkdir()
    monkeypatch.setattr(integrity, "_verified", {})
    assert Dataset.open(copy).verify(always=False)
    assert not Dataset.open(copy).verify(always=False)


def test_a_missing_file_and_a_damaged_stamp(copy: Path) -> None:
    dataset = Dataset.open(copy)
    (copy / STAMP).write_text("[" * 100_000)
    assert dataset.verify(always=False)
    (copy / "train_00000.bin").unlink()
    with pytest.raises(InputError, match=r"cannot read .*train_00000\.bin"):
        dataset.verify(always=False)


def tamper(folder: Path, split: str, place: int, token: int) -> None:
    """Put an id into a token file and make every hash right again."""
    path = folder / f"{split}_00000.bin"
    tokens = np.fromfile(path, dtype="<u2")
    tokens[place] = token
    tokens.tofile(path)
    value: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    for shard in value["shards"]:
        if shard["file"] == path.name:
            shard["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    value["manifest_hash"] = Manifest.parse(value).content_hash()
    (folder / MANIFEST).write_text(json.dumps(value))


def draw(dataset: Dataset, split: str) -> None:
    if split == "train":
        TrainBatches(dataset, 16, 4, seed=0, unique_tokens=64).batch(0)
    else:
        list(ValidationBatches(dataset, 16, 4))


@pytest.mark.parametrize(("split", "what"), [("train", "training"), ("validation", "validation")])
def test_ids_beyond_the_vocabulary_are_one_line(copy: Path, split: str, what: str) -> None:
    tamper(copy, split, 40, 400)
    dataset = Dataset.open(copy)
    with pytest.raises(
        InputError, match=rf"the {what} tokens hold the id 400; the manifest's vocab_size allows 0 to 399"
    ):
        dataset.verify()
    with pytest.raises(InputError, match="holds the token id 400; its vocabulary ends at 399"):
        draw(dataset, split)


@pytest.mark.parametrize("place", [0, 63, 64])
def test_an_id_in_the_last_target_alone_is_found(copy: Path, place: int) -> None:
    tamper(copy, "train", place, 65_535)
    with pytest.raises(InputError, match="holds the token id 65535"):
        TrainBatches(Dataset.open(copy), 64, 1, seed=0, unique_tokens=64).batch(0)
