"""Uploads: found by their own visitor alone, limited in number, gone with the server."""

import hashlib
from pathlib import Path

import pytest

from moelab.app.uploads import MOST_FILES, PER_VISITOR, Uploads, new_visitor
from moelab.errors import InputError


def test_a_file_is_its_own_visitors_alone() -> None:
    uploads = Uploads()
    digest = uploads.keep("one", b"content", ".json")
    assert digest == hashlib.sha256(b"content").hexdigest()
    assert Path(uploads.path("one", digest)).read_bytes() == b"content"
    for visitor, name in (("two", digest), ("one", "0" * 64), ("", digest)):
        with pytest.raises(InputError, match="choose the file again"):
            uploads.path(visitor, name)
    uploads.close()
    assert not uploads.folder.exists()


def test_the_oldest_files_give_way() -> None:
    uploads = Uploads()
    own = [uploads.keep("one", bytes([i]), ".json") for i in range(PER_VISITOR + 2)]
    assert [key[1] for key in uploads.files] == own[2:]
    assert len(list(uploads.folder.iterdir())) == PER_VISITOR
    for i in range(MOST_FILES):
        uploads.keep(f"visitor {i}", b"x", ".csv")
    assert len(uploads.files) == len(list(uploads.folder.iterdir())) == MOST_FILES
    uploads.close()


def test_bringing_a_file_again_keeps_it_young() -> None:
    uploads = Uploads()
    first = uploads.keep("one", b"first", ".json")
    for i in range(PER_VISITOR - 1):
        uploads.keep("one", bytes([i]), ".json")
    uploads.keep("one", b"first", ".json")
    uploads.keep("one", b"another", ".json")
    assert uploads.path("one", first)
    uploads.close()


def test_no_two_visitors_have_one_name() -> None:
    assert len({new_visitor() for _ in range(100)}) == 100
