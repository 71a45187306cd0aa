"""A prepared folder is whole or absent, says what is in it, and is reused; damage and bad input are named."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from moelab.data import Dataset, PrepareConfig, load_tokenizer
from moelab.data.dataset import MANIFEST
from moelab.data.prepare import OtherData, prepare
from moelab.errors import InputError, MoelabError

from .conftest import make_documents, write_folder


def decoded(dataset: Dataset, split: str) -> list[str]:
    """The documents of a split, back as text."""
    stream = getattr(dataset, split)
    tokenizer, end = load_tokenizer(dataset.tokenizer_path), dataset.manifest.end_of_text
    texts: list[list[int]] = [[]]
    for token in stream.read(0, len(stream)).tolist():
        if token == end:
            texts.append([])
        else:
            texts[-1].append(token)
    assert texts.pop() == []
    return [tokenizer.decode(ids) for ids in texts]


def test_every_document_is_there_once(dataset: Dataset, corpus: tuple[Path, Path]) -> None:
    originals = [path.read_text() for folder in corpus for path in folder.iterdir()]
    train, validation = decoded(dataset, "train"), decoded(dataset, "validation")
    assert sorted(train + validation) == sorted(originals)


def test_the_manifest_counts_what_is_there(dataset: Dataset) -> None:
    manifest = dataset.manifest
    for split in ("train", "validation"):
        texts, part = decoded(dataset, split), manifest.total(split)
        assert part.documents == len(texts)
        assert part.bytes == sum(len(text.encode()) for text in texts)
        assert part.tokens == len(getattr(dataset, split))
    assert [source.name for source in manifest.sources] == ["long", "short"]
    for source in manifest.sources:
        assert source.validation.documents >= 1
        share = source.validation.bytes / (source.validation.bytes + source.train.bytes)
        assert share == pytest.approx(0.05, rel=0.5)
    assert manifest.vocab_size == 400
    assert manifest.bytes_per_token > 1.5
    assert not list(dataset.folder.glob("spool*"))


def test_the_same_call_reuses_and_another_is_refused(config: PrepareConfig, dataset: Dataset) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in dataset.folder.iterdir()}
    again = prepare(config, dataset.folder)
    assert again.reused
    assert {path.name: path.stat().st_mtime_ns for path in dataset.folder.iterdir()} == before
    with pytest.raises(InputError, match="holds data prepared otherwise"):
        prepare(config.replace(seed=1), dataset.folder)


def test_the_hash_depends_on_content_and_not_on_path_or_time(
    config: PrepareConfig, dataset: Dataset, corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    moved = tuple(str(shutil.copytree(folder, tmp_path / f"other-{folder.name}")) for folder in corpus)
    same = prepare(config.replace(sources=moved), tmp_path / "elsewhere" / "deep").dataset
    assert same.manifest_hash == dataset.manifest_hash
    for change in ({"seed": 1}, {"vocab_size": 401}, {"max_tokens": 2000}, {"validation_share": 0.1}):
        other = prepare(config.replace(**change), tmp_path / next(iter(change))).dataset
        assert other.manifest_hash != dataset.manifest_hash


def test_a_changed_file_is_noticed_and_force_replaces(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus[0], tmp_path / "text"))
    config = PrepareConfig(sources=(str(folder),), vocab_size=300)
    first = prepare(config, tmp_path / "out").dataset.manifest_hash
    (folder / "0000.txt").write_text("something else entirely, and longer than before " * 5)
    with pytest.raises(OtherData, match=r"prepared otherwise; choose another folder$"):
        prepare(config, tmp_path / "out")
    second = prepare(config, tmp_path / "out", force=True)
    assert not second.reused
    assert second.dataset.manifest_hash != first
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


def test_max_tokens_is_exact_and_a_prefix_of_the_whole(config: PrepareConfig, tmp_path: Path) -> None:
    whole = prepare(config, tmp_path / "whole").dataset
    given = config.replace(tokenizer=str(whole.tokenizer_path), max_tokens=3000)
    part = prepare(given, tmp_path / "part").dataset
    assert len(part.train) == 3000
    assert part.train.read(0, 3000).tolist() == whole.train.read(0, 3000).tolist()
    total = part.manifest.total("train")
    assert total.bytes == int(part.token_bytes[part.train.read(0, 3000)].sum())
    shares = [source.train.bytes / total.bytes for source in part.manifest.sources]
    everything = whole.manifest.total("train").bytes
    for share, source in zip(shares, whole.manifest.sources, strict=True):
        assert share == pytest.approx(source.train.bytes / everything, abs=0.05)
    assert part.manifest.tokenizer_origin == "given"
    with pytest.raises(InputError, match=r"vocab_size: .*tokenizer\.json has 400 tokens, got 500; leave it out"):
        prepare(given.replace(vocab_size=500), tmp_path / "other")


def test_one_small_file_is_enough(corpus: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("\n\n".join(path.read_text() for path in sorted(corpus[0].iterdir())))
    dataset = prepare(PrepareConfig(sources=(str(tmp_path / "one.txt"),), vocab_size=300), tmp_path / "o").dataset
    assert dataset.manifest.sources[0].validation.documents >= 1
    joined = "".join(decoded(dataset, "train") + decoded(dataset, "validation"))
    assert len(joined) == (tmp_path / "one.txt").stat().st_size


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"vocab_size": 256}, "vocab_size: must be at least 257"),
        ({"max_tokens": 1e300}, r"max_tokens: must be above 0 and at most 1e18, got 1e300"),
        ({"vocab_size": 1e300}, r"vocab_size: must be above 0 and at most 10M, got 1e300"),
        ({"vocab_size": 100_000}, "vocab_size: the text fills only"),
        ({"validation_share": 0}, "validation_share: must be above 0"),
        ({"validation_share": 0.9}, "validation_share: must be above 0 and at most 0.5"),
        ({"sources": []}, "source: name at least one"),
        ({"sources": ["/absent"]}, "source: /absent is no file"),
        ({"tokenizer": "/absent.json"}, "tokenizer: cannot read /absent.json"),
    ],
)
def test_bad_requests_leave_nothing(
    config: PrepareConfig, tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        prepare(config.replace(**change), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_empty_corpus(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text(" \n")
    with pytest.raises(InputError, match="source: text holds no text"):
        prepare(PrepareConfig(sources=(str(tmp_path / "text"),)), tmp_path / "out")


def test_places_that_cannot_be_written(config: PrepareConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="out: cannot create the folder"):
        prepare(config, tmp_path / "file" / "out")
    with pytest.raises(InputError, match="is not a folder"):
        prepare(config, tmp_path / "file")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        prepare(config, tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "mine"


def damage(dataset: Dataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(dataset.folder, tmp_path / "copy"))


def test_damage_is_named_and_prepared_again(
    config: PrepareConfig, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = damage(dataset, tmp_path)
    shard = copy / "train_00000.bin"
    content = bytearray(shard.read_bytes())
    shard.write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"train_00000\.bin has \d+ bytes instead of \d+"):
        Dataset.open(copy)
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"train_00000\.bin was changed"):
        Dataset.open(copy, verify=True)
    shard.unlink()
    capsys.readouterr()
    repaired = prepare(config, copy)
    assert re.match(
        r"warning: cannot read .*train_00000\.bin: .*; preparing the data again\n\Z", capsys.readouterr().err
    )
    assert not repaired.reused
    assert repaired.dataset.manifest_hash == dataset.manifest_hash
    repaired.dataset.verify()


@pytest.mark.parametrize("kept", [0, 300, None])
def test_a_damaged_manifest_is_prepared_again(
    config: PrepareConfig, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: int | None
) -> None:
    manifest = damage(dataset, tmp_path) / MANIFEST
    content = manifest.read_bytes()
    manifest.unlink()
    if kept is not None:
        manifest.write_bytes(content[:kept])
    repaired = prepare(config, manifest.parent)
    assert not repaired.reused
    assert repaired.dataset.manifest_hash == dataset.manifest_hash
    assert capsys.readouterr().err == f"warning: {manifest} is damaged; preparing the data again\n"


def test_files_that_prepare_did_not_write_are_never_removed(
    config: PrepareConfig, dataset: Dataset, tmp_path: Path
) -> None:
    theirs = tmp_path / "extension"
    theirs.mkdir()
    (theirs / MANIFEST).write_text('{"manifest_version": 3}')
    copy = damage(dataset, tmp_path)
    (copy / MANIFEST).write_text("{")
    (copy / "notes.md").write_text("mine")
    for folder, name in ((theirs, "manifest.json"), (copy, "notes.md")):
        before = sorted(path.name for path in folder.iterdir())
        for force in (False, True):
            with pytest.raises(InputError, match=rf"holds other files \({name}\); choose another folder"):
                prepare(config, folder, force=force)
        assert sorted(path.name for path in folder.iterdir()) == before


def test_an_edited_manifest_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    copy = damage(dataset, tmp_path)
    value = json.loads((copy / MANIFEST).read_text())
    value["end_of_text"] = 5
    (copy / MANIFEST).write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"manifest\.json was changed"):
        Dataset.open(copy)
    (copy / MANIFEST).write_text(json.dumps({**value, "format": 99}))
    with pytest.raises(InputError, match="has format 99"):
        Dataset.open(copy)
    (copy / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        Dataset.open(copy)
    (copy / MANIFEST).unlink()
    with pytest.raises(InputError, match="holds no prepared data"):
        Dataset.open(copy)


def test_a_missing_tokenizer_is_named(dataset: Dataset, tmp_path: Path) -> None:
    copy = damage(dataset, tmp_path)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json is missing"):
        Dataset.open(copy)


def program(config: PrepareConfig, out: Path) -> list[str]:
    code = (
        "from moelab.data.prepare import PrepareConfig, prepare\n"
        f"result = prepare(PrepareConfig.parse({config.to_dict()!r}), {str(out)!r})\n"
        "print(result.reused, result.dataset.manifest_hash)"
    )
    return [sys.executable, "-c", code]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    config: PrepareConfig, tmp_path: Path, small_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    with pytest.raises(MoelabError, match=r"^out: cannot write[^\n]*$") as caught, small_disk(20_000):
        prepare(config, tmp_path / "out")
    assert type(caught.value) is MoelabError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.dist
def test_a_killed_call_leaves_nothing_half_valid(config: PrepareConfig, dataset: Dataset, tmp_path: Path) -> None:
    for delay in (0.1, 0.3, 0.5, 0.7):
        process = subprocess.Popen(program(config, tmp_path / "out"), stdout=subprocess.DEVNULL)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if (tmp_path / "out").exists():
            assert Dataset.open(tmp_path / "out", verify=True).manifest_hash == dataset.manifest_hash
    assert prepare(config, tmp_path / "out").dataset.manifest_hash == dataset.manifest_hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.dist
def test_calls_at_the_same_time_make_one_folder(config: PrepareConfig, dataset: Dataset, tmp_path: Path) -> None:
    command = program(config, tmp_path / "out")
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    lines = sorted(process.communicate()[0].split()[0] for process in processes)
    assert lines == ["False", "True", "True", "True"]
    assert Dataset.open(tmp_path / "out", verify=True).manifest_hash == dataset.manifest_hash


def test_tokens_and_recipe_are_those_of_version_0_1(
    dataset: Dataset, corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    """The token files that 0.1 wrote for the same text, so that its folders are reused and its run ids stand."""
    assert [shard.sha256[:16] for shard in dataset.manifest.shards] == ["22dbb0efd3263d1d", "521e34c2a302ba2a"]
    assert set(dataset.manifest.recipe) == {"sources", "vocab_size", "seed", "validation_share", "text_field"}
    (tmp_path / "one.txt").write_text("\n\n".join(make_documents(300, seed=5)))
    sources = (str(corpus[0]), str(tmp_path / "one.txt"))
    config = PrepareConfig(sources=sources, vocab_size=300, max_tokens=5000, seed=3)
    other = prepare(config, tmp_path / "out").dataset
    assert [shard.sha256[:16] for shard in other.manifest.shards] == ["f50ede849b2b03b4", "573996ed6dae10d5"]


def test_what_was_left_out_is_reported_and_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(json.dumps({"text": text}) + "\n" for text in make_documents(50))
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.jsonl").write_text(rows + '{"text": "bad \\ud83d here"}\n' + "no json\n")
    for number in range(6):
        (folder / f"{number}.pdf").touch()
    config = PrepareConfig(sources=(str(folder),), vocab_size=300)
    with pytest.raises(InputError, match=r"a\.jsonl line 51 has a text with a lone surrogate"):
        prepare(config, tmp_path / "out")
    capsys.readouterr()
    dataset = prepare(config.replace(skip_bad=True), tmp_path / "out").dataset
    first, second = capsys.readouterr().err.splitlines()
    left_out = "0.pdf, 1.pdf, 2.pdf, 3.pdf, 4.pdf, 5.pdf"
    assert first == f"warning: source texts: left out 6 files of no known kind of text: {left_out}"
    assert re.fullmatch(
        r"warning: source texts: left out 2 bad rows: .*line 51 has a .*; .*line 52 is not JSON.*", second
    )
    (source,) = dataset.manifest.sources
    assert (source.files_left_out, source.rows_left_out) == (6, 2)
    assert prepare(config.replace(skip_bad=True), tmp_path / "out").reused
    (folder / "a.jsonl").write_text("no json\n" * 3)
    with pytest.raises(InputError, match=r"texts holds no text \(3 rows cannot be used: .*a\.jsonl line 1 is not JSON"):
        prepare(config.replace(skip_bad=True), tmp_path / "other")


def test_a_long_text_file_is_read_and_encoded_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same data however small the parts: a text longer than them, among documents."""
    folder = write_folder(tmp_path / "texts", [*make_documents(30), "\n".join(make_documents(100, seed=9))])
    config = PrepareConfig(sources=(str(folder),), vocab_size=300)
    whole = prepare(config, tmp_path / "whole").dataset
    monkeypatch.setattr("moelab.data.readers._PART", 1000)
    monkeypatch.setattr("moelab.data.spool._WINDOW", 700)
    given = config.replace(tokenizer=str(whole.tokenizer_path))
    assert prepare(config, tmp_path / "read").dataset.manifest_hash == whole.manifest_hash
    monkeypatch.setattr("moelab.data.encode.LONGEST", 1500)
    parts = prepare(given, tmp_path / "parts").dataset
    assert parts.manifest.total("train").bytes == whole.manifest.total("train").bytes
    assert parts.manifest.total("train").documents == whole.manifest.total("train").documents
    assert sorted(decoded(parts, "train")) == sorted(decoded(whole, "train"))
    cut = prepare(given.replace(max_tokens=8000), tmp_path / "cut").dataset
    assert len(cut.train) == 8000
    assert cut.train.read(0, 8000).tolist() == parts.train.read(0, 8000).tolist()
    assert cut.manifest.total("train").bytes == int(cut.token_bytes[cut.train.read(0, 8000)].sum())


MEASURED = """
import resource, sys
from pathlib import Path
from moelab.data import PrepareConfig
from moelab.data.prepare import prepare
prepare(PrepareConfig.parse({"sources": [sys.argv[1]], "tokenizer": sys.argv[2]}), sys.argv[3])
status = Path("/proc/self/status")
if status.exists():  # ru_maxrss would begin at the size of the process that started this one
    print(next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_text(dataset: Dataset, tmp_path: Path) -> None:
    """Peak memory at 15 and at 150 megabytes, half of it in documents of 300 bytes, half in one long text.

    It varies by up to 40 megabytes as the processes are scheduled.
    """
    peaks = []
    pieces = make_documents(200, seed=4, words=100)
    for megabytes in (15, 150):
        folder = tmp_path / str(megabytes)
        folder.mkdir()
        with open(folder / "rows.jsonl", "w") as rows, open(folder / "long.txt", "w") as long:
            size = number = 0
            while size < megabytes * 1e6:
                number += 1
                text = f"{number} {pieces[number % 200]}"
                size += len(text)
                if number % 2:
                    rows.write(json.dumps({"text": text}) + "\n")
                else:
                    long.write(text + "\n")
        command = [sys.executable, "-c", MEASURED, str(folder), str(dataset.tokenizer_path), str(folder / "out")]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout))
    assert max(peaks) < 600e6
    assert peaks[1] - peaks[0] < 0.4 * (150 - 15) * 1e6
