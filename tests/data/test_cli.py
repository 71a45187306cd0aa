"""`moelab data prepare`, `show` and `verify`, as a person or a program calls them."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers

from moelab.cli import main
from moelab.data import Dataset

from .conftest import make_documents, write_folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    shown = capsys.readouterr()
    return int(caught.value.code or 0), shown.out, shown.err


def test_prepare_then_reuse(capsys: pytest.CaptureFixture[str], corpus: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("data", "prepare", "--source", corpus[0], "--source", corpus[1], "--vocab-size", "0.4K")
    code, out, err = run(capsys, *words, "--max-tokens", "3K", "--out", tmp_path / "o", "--json")
    first = json.loads(out)
    assert (code, err, first["reused"], first["tokens"], first["vocab_size"]) == (0, "", False, 3000, 400)
    assert [source["name"] for source in first["sources"]] == ["long", "short"]
    assert first["manifest_hash"] == Dataset.open(tmp_path / "o").manifest_hash
    assert first["bytes_on_disk"] > 6000
    code, out, _ = run(capsys, *words, "--max-tokens", "3K", "--out", tmp_path / "o")
    assert code == 0
    assert "Reused" in out
    assert "short" in out


def test_other_data_is_replaced_with_force_only(
    capsys: pytest.CaptureFixture[str], corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    words = ("data", "prepare", "--source", corpus[1], "--out", tmp_path / "o", "--json", "--vocab-size")
    assert run(capsys, *words, 300)[0] == 0
    code, out, err = run(capsys, *words, 301)
    assert (code, out) == (2, "")
    assert err.endswith("holds data prepared otherwise; choose another folder, or --force to replace it\n")
    assert json.loads(run(capsys, *words, 301, "--force")[1])["vocab_size"] == 301


def test_progress_is_shown_on_stderr(
    capsys: pytest.CaptureFixture[str], corpus: tuple[Path, Path], tmp_path: Path
) -> None:
    code, out, err = run(capsys, "data", "prepare", "--source", corpus[0], "--vocab-size", 300, "--out", tmp_path / "o")
    assert code == 0
    assert "Prepared" in out
    for stage in ("read long", "train tokenizer", "encode training text", "encode held-out text"):
        assert stage in err


def test_the_default_folder_is_named_after_source_and_vocabulary(
    capsys: pytest.CaptureFixture[str], corpus: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "data", "prepare", "--source", corpus[0], "--vocab-size", 300, "--json")[0] == 0
    assert Dataset.open(tmp_path / "data" / "long-300").vocab_size == 300


def test_show(capsys: pytest.CaptureFixture[str], dataset: Dataset) -> None:
    code, out, _ = run(capsys, "data", "show", dataset.folder, "--verify", "--json")
    assert code == 0
    assert json.loads(out)["verified"] is True
    code, out, _ = run(capsys, "data", "show", dataset.folder)
    assert code == 0
    assert "not stated" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("prepare", "--vocab-size", "abc"), "error: --vocab-size: expected a number"),
        (("prepare", "--vocab-size", "-5"), "error: --vocab-size:"),
        (("prepare", "--vocab-size", "12"), "error: --vocab-size: must be at least 257"),
        (("prepare", "--vocab-size", "1e300"), "error: --vocab-size: must be above 0 and at most 10M"),
        (
            ("prepare", "--tokenizer", "t.json", "--vocab-size", "500"),
            "error: --vocab-size: a given tokenizer has its own",
        ),
        (("prepare", "--source", ""), "error: --source: must not be empty"),
        (("prepare", "--max-tokens", "0"), "error: --max-tokens:"),
        (("prepare", "--validation-share", "7"), "error: --validation-share:"),
        (("prepare", "--source", "/absent"), "error: --source: /absent is no file"),
        (("prepare", "--source", "/dev/null/x"), "error: --source: /dev/null/x is no file"),
        (("show", "/absent"), "error: data: /absent holds no prepared data"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOELAB_CACHE", str(tmp_path / "cache"))
    code, out, err = run(capsys, "data", *words)
    assert (code, out) == (2, "")
    assert err.startswith(complaint)
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_verify(capsys: pytest.CaptureFixture[str], dataset: Dataset, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(dataset.folder, tmp_path / "copy"))
    code, out, _ = run(capsys, "data", "verify", copy)
    assert (code, out.startswith(f"{copy}: every file has the hash")) == (0, True)
    assert json.loads(run(capsys, "data", "verify", copy, "--json")[1])["verified"] is True
    content = (copy / "validation_00000.bin").read_bytes()
    (copy / "validation_00000.bin").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, out, err = run(capsys, "data", "verify", copy)
    assert (code, out) == (2, "")
    assert err.endswith("validation_00000.bin was changed: its hash is not the manifest's\n")


def test_names_text_column_and_bad_rows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words: list[object] = ["data", "prepare", "--vocab-size", 300, "--out", tmp_path / "o", "--text-column", "body"]
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        rows = [{"body": text} for text in make_documents(40, seed=ord(folder))]
        (tmp_path / folder / "train.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{}\n")
        words += ["--source", tmp_path / folder / "train.ndjson", "--name", f"the {folder}"]
    code, _, err = run(capsys, *words)
    assert code == 2
    assert err.endswith("train.ndjson line 41 has no text in the field 'body'\n")
    code, out, err = run(capsys, *words, "--skip-bad")
    assert code == 0
    assert "warning: source the a: left out 1 bad row: " in err
    assert "the b: 1 bad rows left out" in out


def test_a_lossy_tokenizer_needs_a_flag(capsys: pytest.CaptureFixture[str], dataset: Dataset, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(dataset.tokenizer_path))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.save(str(tmp_path / "t.json"))
    texts = write_folder(tmp_path / "texts", make_documents(40))
    words = ("data", "prepare", "--source", texts, "--tokenizer", tmp_path / "t.json", "--out", tmp_path / "o")
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "error: --tokenizer: it does not keep the text (texts: " in err
    assert err.endswith("give another, or allow_lossy\n")
    code, out, err = run(capsys, *words, "--allow-lossy")
    assert code == 0
    assert "Warning: data: the tokenizer changed" in out
    assert json.loads(run(capsys, "data", "show", tmp_path / "o", "--json")[1])["lossy"]["texts"] > 0
