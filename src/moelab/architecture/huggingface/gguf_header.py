"""The header of a GGUF file (versions 2 and 3): its metadata and the shapes of its tensors. No weight is read.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from moelab.errors import InputError

MAGIC, VERSIONS = b"GGUF", (2, 3)
NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""Types of values by their code, as `struct` reads them; 8 is text, 9 a list."""
TEXT, LIST = 8, 9
MOST_KEPT = 4096
"""Numbers of a list that are kept; a longer one, or one of texts, is kept as its length."""
MOST_ENTRIES = 1_000_000
"""Entries of metadata, or tensors: more is no model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the header of a GGUF file holds: metadata by key, and the shape of each tensor. A list of texts, such as
    the vocabulary, is its length."""

    metadata: dict[str, Any]
    tensors: dict[str, tuple[int, ...]]


def read_header(path: Path) -> Header:
    """Read it. Raises InputError naming the file, where it is no GGUF file, is cut off or cannot be opened."""
    try:
        with path.open("rb") as file:
            return _Reader(file, path).header()
    except OSError as error:
        raise InputError(f"config: {path} cannot be read ({error.strerror})") from None


class _Reader:
    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.size = file, path, path.stat().st_size

    def header(self) -> Header:
        if self.file.read(4) != MAGIC:
            self._fail("is no GGUF file (it does not begin with GGUF)")
        version = self._number("<I")
        if version not in VERSIONS:
            self._fail(f"is of GGUF version {version}; moelab reads versions {' and '.join(map(str, VERSIONS))}")
        n_tensors, n_values = self._number("<Q"), self._number("<Q")
        if max(n_tensors, n_values) > MOST_ENTRIES:
            self._fail(f"has {max(n_tensors, n_values):,} entries in its header, more than {MOST_ENTRIES:,}")
        metadata = {}
        for _ in range(n_values):
            key = self._text()
            metadata[key] = self._value(self._number("<I"))
        return Header(metadata=metadata, tensors=dict(self._tensor() for _ in range(n_tensors)))

    def _tensor(self) -> tuple[str, tuple[int, ...]]:
        name, n_dims = self._text(), self._number("<I")
        if n_dims > 8:
            self._fail(f"has a tensor of {n_dims} dimensions")
        shape = tuple(self._number("<Q") for _ in range(n_dims))
        self._bytes(4 + 8)  # how it is stored, and where
        return name, shape

    def _value(self, kind: int) -> Any:
        if kind == TEXT:
            return self._text()
        if kind == LIST:
            return self._list()
        if kind not in NUMBERS:
            self._fail(f"has a value of the unknown type {kind}")
        return self._number(NUMBERS[kind])

    def _list(self) -> Any:
        kind, length = self._number("<I"), self._number("<Q")
        if kind == TEXT:
            for _ in range(min(length, self.size)):
                self._skip(self._number("<Q"))
            return length
        if kind not in NUMBERS:
            self._fail(f"has a list of the unknown type {kind}")
        if length > MOST_KEPT:
            self._skip(length * struct.calcsize(NUMBERS[kind]))
            return length
        return [self._number(NUMBERS[kind]) for _ in range(length)]

    def _text(self) -> str:
        return self._bytes(self._number("<Q")).decode("utf-8", "replace")

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _bytes(self, count: int) -> bytes:
        found = self.file.read(count) if count <= self.size else b""
        if len(found) != count:
            self._fail("is cut off in its header")
        return found

    def _skip(self, count: int) -> None:
        if count > self.size or self.file.seek(count, 1) > self.size:
            self._fail("is cut off in its header")

    def _fail(self, what: str) -> NoReturn:
        raise InputError(f"config: {self.path} {what}")
