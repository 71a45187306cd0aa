"""From sources to documents: exact de-duplication, scarce sources cut in pieces, large ones held to a share.

Texts are spooled to one temporary file and the documents' places to others, so memory grows neither with the text nor
with the number of documents. Every choice (what a capped source keeps, what is held out, what comes first) follows a
seeded hash of the document's content: it depends neither on the order of files nor on the machine.
"""

import hashlib
from pathlib import Path
from typing import BinaryIO

from moelab.data.ledger import Document, Ledger, Seen, digest_of, first_of_each
from moelab.data.progress import Report, no_report
from moelab.data.readers import BadText, Skips, Text
from moelab.data.selection import FEWEST_DOCUMENTS, cap_sources, cut_scarce
from moelab.data.sources import Source
from moelab.data.spool import Spool
from moelab.errors import InputError


def collect(
    sources: list[Source],
    folder: Path,
    seed: int,
    report: Report = no_report,
    enough_bytes: int | None = None,
    skip_bad: bool = False,
) -> Spool:
    """Read every source into a spool in `folder`, dropping exact duplicates.

    `enough_bytes`: where to stop reading a streamed source. `skip_bad`: leave out and count what cannot be used.
    Raises InputError for a source without text.
    """
    spool = Spool(folder, Ledger(folder / "read", len(sources)))
    seen = Seen()
    end = 0
    with open(spool.path, "wb") as stream:
        for index, source in enumerate(sources):
            skips = Skips(skip_bad)
            spool.skips.append(skips)
            end, duplicates = _read_source(
                source, index, stream, end, spool.documents, seen, skips, report, enough_bytes
            )
            spool.duplicates += duplicates
            if not spool.documents.count[index]:
                earlier = " that is not in an earlier source" if len(spool.documents) else ""
                bad = f" ({skips.count} rows cannot be used: {skips.examples[0]})" if skips.count else ""
                raise InputError(f"source: {source.name} holds no text{earlier}{bad}")
    if seen.overflowed:
        everything = spool.documents
        spool.documents = spool.new_ledger("fresh")
        spool.duplicates += first_of_each(everything, spool.documents, folder)
    if any(count < FEWEST_DOCUMENTS for count in spool.documents.count):
        spool.documents = cut_scarce(spool)
    if any(source.max_share is not None for source in sources):
        spool.documents = cap_sources(spool, sources, seed)
    return spool


def _read_source(
    source: Source,
    index: int,
    stream: BinaryIO,
    begin: int,
    ledger: Ledger,
    seen: Seen,
    skips: Skips,
    report: Report,
    enough_bytes: int | None,
) -> tuple[int, int]:
    """Append a source's documents to the spool, from its byte `begin`, and to the ledger. Returns where the spool ends
    then, and the number of duplicates."""
    place = begin
    duplicates = 0
    for number, text in enumerate(source.read(skips), 1):
        if isinstance(text, bytes):
            length, digest = len(text), digest_of(text)
        else:
            found = _write_long(text, stream, place, skips)
            if found is None:
                continue
            length, digest = found
        if seen.add(digest):
            duplicates += 1
            if not isinstance(text, bytes):  # it has been written already
                stream.seek(place)
            continue
        ledger.append(Document(index, place, length, digest))
        if isinstance(text, bytes):
            stream.write(text)
        place += length
        if number % 1000 == 0:
            report(f"read {source.name}", place - begin, 0)
        if source.streamed and enough_bytes is not None and place - begin >= enough_bytes:
            break
    stream.truncate(place)
    done = max(place - begin, 1)
    report(f"read {source.name}", done, done)
    return place, duplicates


def _write_long(parts: Text, stream: BinaryIO, place: int, skips: Skips) -> tuple[int, bytes] | None:
    """Write a text that comes in parts at `place`: its length and digest; None where it is blank or cannot be used."""
    digest = hashlib.blake2b(digest_size=16)
    length, blank = 0, True
    try:
        for part in parts:
            assert isinstance(part, bytes)
            stream.write(part)
            digest.update(part)
            length += len(part)
            blank = blank and not part.decode().strip()
    except BadText as error:
        if not skips.allowed:
            raise
        skips.refuse(str(error).removeprefix("source: "))
        blank = True
    if blank:
        stream.seek(place)
        return None
    return length, digest.digest()
