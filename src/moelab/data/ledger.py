"""Records of documents in files: 36 bytes each, sorted in parts, so that memory does not grow with their number."""

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Records = NDArray[Any]
"""Documents as an array of RECORD."""
RECORD = np.dtype([("source", "<u4"), ("start", "<u8"), ("length", "<u8"), ("digest", "V16")])
_PACKED = struct.Struct("<IQQ16s")
BLOCK = 1 << 19
"""Records that are held in memory together."""
MOST_SEEN = 1 << 20
"""Digests of documents that are held in memory; duplicates of later ones are found by sorting."""


@dataclass(frozen=True, slots=True)
class Document:
    """A stretch of the spool file: the source's index, first byte, length in bytes, digest of the content."""

    source: int
    start: int
    length: int
    digest: bytes


def digest_of(content: bytes) -> bytes:
    """Sixteen bytes that stand for a document's content."""
    return hashlib.blake2b(content, digest_size=16).digest()


class Seen:
    """The digests of the documents so far, up to MOST_SEEN of them."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()
        self.overflowed = False

    def add(self, digest: bytes) -> bool:
        """Whether this digest came before; remembers it."""
        if digest in self._digests:
            return True
        if len(self._digests) < MOST_SEEN:
            self._digests.add(digest)
        else:
            self.overflowed = True
        return False


class Ledger:
    """Documents in one file, appended and then read in order; `count` and `bytes` are those of each source."""

    def __init__(self, path: Path, n_sources: int) -> None:
        self.path = path
        self.count = [0] * n_sources
        self.bytes = [0] * n_sources
        self._held: list[bytes] = []
        path.write_bytes(b"")

    def append(self, document: Document) -> None:
        """Add one document after the others."""
        self.count[document.source] += 1
        self.bytes[document.source] += document.length
        self._held.append(_PACKED.pack(document.source, document.start, document.length, document.digest))
        if len(self._held) >= 4096:
            self._flush()

    def extend(self, records: Records) -> None:
        """Add documents after the others."""
        self._flush()
        for source in range(len(self.count)):
            own = records["source"] == source
            self.count[source] += int(np.count_nonzero(own))
            self.bytes[source] += int(records["length"][own].sum())
        with open(self.path, "ab") as stream:
            stream.write(records.tobytes())

    def blocks(self) -> Iterator[Records]:
        """The documents as arrays."""
        self._flush()
        yield from _blocks(self.path, RECORD)

    def __iter__(self) -> Iterator[Document]:
        for block in self.blocks():
            yield from documents_of(block)

    def __len__(self) -> int:
        return sum(self.count)

    def _flush(self) -> None:
        if self._held:
            with open(self.path, "ab") as stream:
                stream.write(b"".join(self._held))
            self._held = []


def documents_of(records: Records) -> Iterator[Document]:
    """The documents of an array, a few at a time."""
    for begin in range(0, len(records), 4096):
        for fields in _PACKED.iter_unpack(records[begin : begin + 4096].tobytes()):
            yield Document(*fields)


def by_rank(seed: int, purpose: str) -> Callable[[Records], NDArray[np.uint64]]:
    """Numbers that shuffle documents by their content: others for each seed and purpose."""
    key = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    blank = hashlib.blake2b(digest_size=8, key=key)

    def ranks(records: Records) -> NDArray[np.uint64]:
        content = records["digest"].tobytes()
        found = []
        for begin in range(0, len(content), 16):
            one = blank.copy()
            one.update(content[begin : begin + 16])
            found.append(one.digest())
        return np.frombuffer(b"".join(found), dtype=">u8").astype(np.uint64)

    return ranks


def in_order(
    blocks: Iterable[Records], count: int, key: Callable[[Records], NDArray[Any]], top: float, folder: Path
) -> Iterator[Records]:
    """The records sorted by a key that is spread over 0 .. top (then by source, then as they came).

    More than BLOCK of them are first dealt to files in `folder`, one for each stretch of the key, and sorted by file.
    """
    n_parts = max(-(-count // BLOCK), 1)
    if n_parts == 1:
        held = list(blocks)
        if held:
            yield _sorted(np.concatenate(held), key)
        return
    paths = [folder / f"{id(blocks):x}-{part}.part" for part in range(n_parts)]
    kind = RECORD
    for block in blocks:
        kind = block.dtype
        places = np.minimum(key(block).astype(np.float64) / top * n_parts, n_parts - 1).astype(np.int64)
        for part in np.unique(places).tolist():
            with open(paths[part], "ab") as stream:
                stream.write(block[places == part].tobytes())
    for path in paths:
        if path.exists():
            part_records = np.fromfile(path, dtype=kind)
            path.unlink()
            yield _sorted(part_records, key)


def _sorted(records: Records, key: Callable[[Records], NDArray[Any]]) -> Records:
    result: Records = records[np.lexsort((records["source"], key(records)))]
    return result


def _blocks(path: Path, kind: np.dtype[Any]) -> Iterator[Records]:
    with open(path, "rb") as stream:
        while len(block := np.fromfile(stream, dtype=kind, count=BLOCK)):
            yield block


def first_of_each(records: Ledger, into: Ledger, folder: Path) -> int:
    """Copy the documents whose content has not come before. Returns how many were left out."""

    def high(block: Records) -> NDArray[np.uint64]:
        return np.frombuffer(block["digest"].tobytes(), dtype="<u8")[::2]

    for block in in_order(records.blocks(), len(records), high, 2.0**64, folder):
        low = np.frombuffer(block["digest"].tobytes(), dtype="<u8")[1::2]
        order = np.lexsort((block["start"], low, high(block)))
        block = block[order]
        words = np.frombuffer(block["digest"].tobytes(), dtype="<u8").reshape(-1, 2)
        fresh = np.ones(len(block), dtype=bool)
        fresh[1:] = (words[1:] != words[:-1]).any(axis=1)
        into.extend(block[fresh])
    return len(records) - len(into)
