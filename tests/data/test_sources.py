"""Reading documents out of files, folders and tables; every unusable input is one line naming the file."""

import gzip
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars
import pytest

from moelab.data import readers
from moelab.data.readers import Skips, Text, read_file
from moelab.data.sources import open_sources
from moelab.errors import InputError, MoelabError

TEXTS = Path(__file__).parent / "texts"


def read(*names: object, text_field: str = "text") -> list[str]:
    sources = open_sources([str(name) for name in names], text_field, Path("/nonexistent"))
    return [whole(text) for source in sources for text in source.read(Skips())]


def whole(text: Text) -> str:
    return (text if isinstance(text, bytes) else b"".join(text)).decode()


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
        assert read(tmp_path / "x.parquet") == ["one", "two"]


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
        ("x.txt", b"abc\xff", "x.txt line 1 is not UTF-8 text"),
        ("x.jsonl", b'{"text": "a"}\n{"text"\n', "x.jsonl line 2 is not JSON"),
        ("x.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "x.jsonl line 2 has no text in the field 'text'"),
        ("x.jsonl", b"[1]\n", "x.jsonl line 1 has no text"),
        ("x.jsonl", b'{"text": "\xff"}\n', "x.jsonl line 1 is not UTF-8"),
        ("x.jsonl", b'{"text": 12345}\n', "x.jsonl line 1 has no text"),
        ("x.jsonl", b'{"text": ' + b"[" * 200_000 + b"\n", "x.jsonl line 1 is nested too deeply"),
        ("x.jsonl.gz", b"no gzip", "cannot read .*x.jsonl.gz from line 1 on"),
        ("x.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0)[:10] + b"\xff" * 40, "cannot read .*x.jsonl.gz"),
        ("x.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0)[:-9], "cannot read .*x.jsonl.gz"),
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


C4 = "".join(
    json.dumps({"text": text, "url": "a"}) + "\n" for text in ("A river bends.", "A caf\u00e9 \u2014 open.", "Short.")
)


def compress(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content)
    if name.endswith(".zst"):
        return pytest.importorskip("zstandard").ZstdCompressor().compress(content)
    return content


@pytest.mark.parametrize("suffix", ["json", "ndjson", "jsonl", "JSON"])
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_json_lines_by_every_name_alone_and_in_a_folder(tmp_path: Path, suffix: str, compression: str) -> None:
    path = tmp_path / f"c4.{suffix}{compression}"
    path.write_bytes(compress(path.name, C4.encode()))
    texts = ["A river bends.", "A café — open.", "Short."]
    assert read(path) == texts
    assert read(tmp_path) == texts


@pytest.mark.parametrize("name", ["x.txt.gz", "x.txt.zst", "x.md.gz", "x.zst", "x.gz"])
def test_compressed_text(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(compress(name, b"\xef\xbb\xbfone\r\ntwo\rthree"))
    assert read(tmp_path / name) == read(tmp_path) == ["one\ntwo\nthree"]


def test_a_compressed_file_without_another_ending_may_hold_json_lines(tmp_path: Path) -> None:
    (tmp_path / "shard.zst").write_bytes(compress(".zst", C4.encode()))
    assert len(read(tmp_path / "shard.zst")) == 3


def test_zstandard_files_of_several_frames_are_read_whole_and_cut_ones_refused(tmp_path: Path) -> None:
    """The library's own reader stops quietly at the end of a file that was cut."""
    frame = compress(".zst", C4.encode() * 5000)
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(frame + frame)
    assert len(read(path)) == 30_000
    path.write_bytes(frame[:-5])
    with pytest.raises(
        InputError, match=r"cannot read .*x\.jsonl\.zst from line \d+ on: it ends inside a compressed frame"
    ):
        read(path)
    path.write_bytes(b"no frame at all")
    with pytest.raises(InputError, match=r"cannot read .*x\.jsonl\.zst from line 1 on"):
        read(path)


def test_zstandard_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jsonl.zst").touch()
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(
        InputError, match=r"x\.jsonl\.zst needs the package zstandard \(pip install 'moelab\[train\]'\)"
    ):
        read(tmp_path)


def test_what_a_folder_leaves_out_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "sub").mkdir()
    for name in ("paper.pdf", "sub/code.py", "dump.tar.gz", "description.json", ".hidden.pdf"):
        (tmp_path / name).write_text('{\n "a": 1\n}\n')
    (source,) = open_sources([str(tmp_path)], "text", Path("/nonexistent"))
    assert source.left_out == ("description.json", "dump.tar.gz", "paper.pdf", "sub/code.py")
    (tmp_path / "a.txt").unlink()
    with pytest.raises(InputError, match=r"holds no text \(looked for .*; it holds description\.json\)"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"dump\.tar\.gz is an archive; unpack it"):
        read(tmp_path / "dump.tar.gz")


def test_linked_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "b.txt").write_text("two")
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("one")
    (texts / "link").symlink_to(tmp_path / "elsewhere")
    (texts / "again").symlink_to(tmp_path / "elsewhere" / "deep")
    (texts / "broken").symlink_to(tmp_path / "nowhere")
    (texts / "loop").symlink_to(texts)
    (tmp_path / "elsewhere" / "back").symlink_to(texts)
    (source,) = open_sources([str(texts)], "text", Path("/nonexistent"))
    assert sorted(whole(text) for text in source.read(Skips())) == ["one", "two"]
    assert source.left_out == ("broken",)
    alone = tmp_path / "alone"
    alone.symlink_to(texts)
    assert sorted(read(alone)) == ["one", "two"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"source: cannot read .*closed: Permission denied"):
        read(tmp_path)


BAD = (
    b'{"text": "good"}\n{"text": "bad \\ud83d here"}\nno json\n{"text": 5}\n{"txt": ""}\n'
    b'{"text": "\xff"}\n{"text": "last"}\n'
)


def test_a_lone_surrogate_is_refused_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad_row.jsonl").write_bytes(BAD)
    with pytest.raises(InputError, match=r"bad_row\.jsonl line 2 has a text with a lone surrogate, '\\ud83d'"):
        read(tmp_path / "bad_row.jsonl")


def test_bad_rows_are_left_out_and_counted_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(BAD)
    skips = Skips(allowed=True)
    assert [whole(text) for text in read_file(path, skips=skips)] == ["good", "last"]
    assert skips.count == 5
    assert [example.partition("x.jsonl ")[2][:6] for example in skips.examples] == ["line 2", "line 3", "line 4"]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(BAD)[:-9])
    (tmp_path / "x.txt").write_bytes(b"\xff")
    (tmp_path / "x.parquet").write_bytes(b"no table")
    for name in ("x.jsonl.gz", "x.txt", "x.parquet"):
        skips = Skips(allowed=True)
        list(read_file(tmp_path / name, skips=skips))
        assert skips.count >= 1
        assert name in skips.examples[-1] or skips.count > 3


def test_a_line_that_is_too_long_is_named_and_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LONGEST_ROW", 1 << 20)
    path = tmp_path / "x.jsonl"
    long = json.dumps({"text": "y" * (1 << 21)}) + "\n"
    path.write_text('{"text": "one"}\n' + long + '{"text": "two"}\n' + long.rstrip())
    with pytest.raises(InputError, match=r"x\.jsonl line 2 is longer than 1 MiB"):
        read(path)
    skips = Skips(allowed=True)
    assert [whole(text) for text in read_file(path, skips=skips)] == ["one", "two"]
    assert skips.count == 2
    polars.DataFrame({"text": ["one", "y" * (1 << 21)]}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match=r"x\.parquet row 2 is longer than 1 MiB"):
        read(tmp_path / "x.parquet")


def test_a_long_text_file_comes_in_parts_with_the_line_of_a_bad_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_PART", 64)
    path = tmp_path / "x.txt"
    content = "".join(f"{number} é漢\r\n" for number in range(500)).encode()
    path.write_bytes(b"\xef\xbb\xbf" + content)
    (parts,) = ([*text] for text in read_file(path) if not isinstance(text, bytes))
    assert len(parts) > 10
    assert b"".join(parts) == content.replace(b"\r\n", b"\n")
    path.write_bytes(content + b"\xff\n")
    with pytest.raises(InputError, match=r"x\.txt line 501 is not UTF-8"):
        read(path)


def test_lines_of_an_old_macintosh(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "one"}\r{"text": "two"}\r\n{"text": 3}')
    with pytest.raises(InputError, match=r"x\.jsonl line 3 has no text"):
        read(tmp_path / "x.jsonl")


def test_sources_of_one_file_name_need_names(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text(C4)
    paths = [str(tmp_path / folder / "train.jsonl") for folder in ("a", "b")]
    with pytest.raises(InputError, match=r"two sources are called 'train\.jsonl'; .* \(--name, once for each\)"):
        read(*paths)
    named = open_sources(paths, "text", Path("/nonexistent"), ["web", "code"])
    assert [source.name for source in named] == ["web", "code"]
    with pytest.raises(InputError, match=r"name: give one for each source, in their order; got 1 for 2 sources"):
        open_sources(paths, "text", Path("/nonexistent"), ["web"])
    with pytest.raises(InputError, match=r"two sources are called 'web'; names must differ$"):
        open_sources(paths, "text", Path("/nonexistent"), ["web", "web"])
    with pytest.raises(InputError, match="name: must not be empty"):
        open_sources(paths, "text", Path("/nonexistent"), ["web", " "])
    with pytest.raises(InputError, match="name: 'wheels' holds several sources with names of their own"):
        open_sources(["wheels"], "text", Path("/nonexistent"), ["mine"])


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
    with pytest.raises(InputError, match=r"hf:org/set row 1 has no text field 'body' \(fields: text\)"):
        read("hf:org/set", text_field="body")
    with pytest.raises(MoelabError, match="cannot read hf:org/broken: no route to host"):
        read("hf:org/broken")
