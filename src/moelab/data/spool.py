"""The texts of all sources in one temporary file, and where each document lies in it."""

import codecs
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from moelab.data.ledger import Document, Ledger
from moelab.data.readers import Skips

_WINDOW = 1 << 20


@dataclass
class Spool:
    """The texts of all sources in one file, and where each de-duplicated document lies in it.

    `folder` is where temporary files go. `skips` are the rows of each source that were left out.
    """

    folder: Path
    documents: Ledger
    duplicates: int = 0
    skips: list[Skips] = field(default_factory=list)
    _file: int = -1

    @property
    def path(self) -> Path:
        return self.folder / "spool"

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the spool file. (Through a memory map they would count as this process' memory.)"""
        if self._file < 0:
            self._file = os.open(self.path, os.O_RDONLY)
        return os.pread(self._file, length, start)

    def texts(self, documents: Iterable[Document]) -> Iterator[str]:
        """The text of each document, in the given order."""
        for document in documents:
            yield self.read(document.start, document.length).decode()

    def parts(self, document: Document, longest: int) -> Iterator[str]:
        """A document's text in parts of at most `longest` characters, cut before the end of a line where there is one.

        Only a document of more than `longest` bytes is cut.
        """
        if document.length <= longest:
            yield self.read(document.start, document.length).decode()
            return
        decoder = codecs.getincrementaldecoder("utf-8")()
        text = ""
        for begin in range(0, document.length, _WINDOW):
            text += decoder.decode(self.read(document.start + begin, min(_WINDOW, document.length - begin)))
            while len(text) > longest:
                end = text.rfind("\n", 1, longest)
                end = end if end > 0 else longest
                yield text[:end]
                text = text[end:]
        yield text

    def new_ledger(self, name: str) -> Ledger:
        """An empty list of documents in a file of its own."""
        return Ledger(self.folder / name, len(self.documents.count))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
