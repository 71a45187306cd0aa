"""Reading documents out of files, folders and tables; every unusable input is one line naming the file."""

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars
import pytest

from moelab.data.sources import open_sources, read_file
from moelab.errors import InputError, MoelabError

TEXTS = Path(__file__).parent / "texts"


def read(*names: object, text_field: str = "text") -> list[str]:
    sources = open_sources([str(name) for name in names], text_field, Path("/nonexistent"))
    return [text for source in sources for text in source.read()]


def test_a_folder_gives_its_text_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "b" / "two.md").write_text("two")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\nline")
    (tmp_path / ".hidden" / "x.txt").write_text("hidden")
    (tmp_path / "c.bin").write_bytes(b"\xff\xfe")
    assert read(tmp_path) == ["one\nline", "two"]


def test_the_sample_texts_are_read() -> None:
    texts = read(TEXTS)
    assert len(texts) == 3
    assert texts[0].startswith("Alice was beginning")


def test_json_lines_plain_and_compressed(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"body": text}) + "\n" for text in ("one", "two")) + "\n"
    (tmp_path / "x.jsonl").write_text(lines)
    with gzip.open(tmp_path / "x.jsonl.gz", "wt") as stream:
        stream.write(lines)
    assert read(tmp_path / "x.jsonl", text_field="body") == ["one", "two"]
    assert read(tmp_path / "x.jsonl.gz", text_field="body") == ["one", "two"]


def test_parquet(tmp_path: Path) -> None:
    table = polars.DataFrame({"text": ["one", "", "two"], "n": [1, 2, 3]})
    for kind in (polars.String, polars.Categorical, polars.Enum(["one", "", "two"])):
        table.with_columns(polars.col("text").cast(kind)).write_parquet(tmp_path / "x.parquet")
        assert read(tmp_path / "x.parquet") == ["one", "", "two"]


def test_a_missing_text_is_refused_in_every_table(tmp_path: Path) -> None:
    table = polars.DataFrame({"text": ["one", None, "two"]})
    table.write_parquet(tmp_path / "x.parquet")
    table.write_ndjson(tmp_path / "x.jsonl")
    with pytest.raises(InputError, match=r"x\.parquet row 2 has no text in the column 'text'"):
        read(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.jsonl line 2 has no text in the field 'text'"):
        read(tmp_path / "x.jsonl")


def test_json_lines_with_a_byte_order_mark_and_with_long_numbers(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one", "n": %s}\n{"text": "two"}\n' % (b"1" * 5000))
    assert read(tmp_path / "x.jsonl") == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("x.txt", b"abc\xff", "x.txt is not UTF-8 text"),
        ("x.jsonl", b'{"text": "a"}\n{"text"\n', "x.jsonl line 2 is not JSON"),
        ("x.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "x.jsonl line 2 has no text in the field 'text'"),
        ("x.jsonl", b"[1]\n", "x.jsonl line 1 has no text"),
        ("x.jsonl", b'{"text": "\xff"}\n', "x.jsonl is not UTF-8"),
        ("x.jsonl", b'{"text": 12345}\n', "x.jsonl line 1 has no text"),
        ("x.jsonl", b'{"text": ' + b"[" * 200_000 + b"\n", "x.jsonl line 1 is nested too deeply"),
        ("x.jsonl.gz", b"no gzip", "cannot read .*x.jsonl.gz"),
        ("x.jsonl.gz", gzip.compress(b'{"text": "a"}\n')[:10] + b"\xff" * 40, "cannot read .*x.jsonl.gz"),
        ("x.jsonl.gz", gzip.compress(b'{"text": "a"}\n')[:-9], "cannot read .*x.jsonl.gz"),
        ("x.parquet", b"no parquet", "x.parquet is not a Parquet file"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        list(read_file(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_parquet_file_without_the_column_lists_its_columns(tmp_path: Path) -> None:
    polars.DataFrame({"body": ["a"], "text": [1]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"the column 'text' holds Int64, not text"):
        read(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"no column 'txt' \(columns: body, text\)"):
        read(tmp_path / "x.parquet", text_field="txt")


def test_unusable_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file, no folder and no built-in corpus \\(default, wheels"):
        read(tmp_path / "absent")
    with pytest.raises(InputError, match="source: must not be empty"):
        read("")
    with pytest.raises(InputError, match="holds no text"):
        read(tmp_path)
    with pytest.raises(InputError, match="two sources are called 'sotu'"):
        read("default", "wheels")


def test_hugging_face_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="hf:some/set needs the package datasets"):
        read("hf:some/set")


def test_hugging_face_is_streamed_from_the_named_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> list[dict[str, str]]:
        asked.append((args, options))
        if args[0] == "org/broken":
            raise ConnectionError("no route\nto host")
        return [{"text": "one"}, {"text": "two"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert read("hf:org/set:en@test") == ["one", "two"]
    assert asked == [(("org/set", "en"), {"split": "test", "streaming": True})]
    with pytest.raises(InputError, match=r"hf:org/set has no text field 'body' \(fields: text\)"):
        read("hf:org/set", text_field="body")
    with pytest.raises(MoelabError, match="cannot read hf:org/broken: no route to host"):
        read("hf:org/broken")
