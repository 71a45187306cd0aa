"""Fill an empty folder with prepared data: documents are collected, split, mixed, tokenized and written."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moelab.data.bpe import train_tokenizer
from moelab.data.config import PrepareConfig
from moelab.data.dataset import FORMAT, MANIFEST, TOKENIZER, Manifest
from moelab.data.documents import collect
from moelab.data.encode import Tally, write_tokens
from moelab.data.ledger import Document, Ledger
from moelab.data.lossless import LosslessCheck
from moelab.data.order import mix, split
from moelab.data.progress import Report
from moelab.data.shards import ShardWriter, token_dtype
from moelab.data.sources import Source
from moelab.data.spool import Spool
from moelab.data.tokenizer import end_of_text_id
from moelab.files import sha256_file, write_json
from moelab.printable import warn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LEAST_VALIDATION_TOKENS = 50_000
"""`max_tokens` shortens the held-out text in proportion, but not below this."""
_WHOLE = 8 << 20
"""A tokenizer learns from a document of no more bytes in one piece."""
MOST_NAMED = 100
"""Files left out that are named one by one."""


def build_folder(
    place: Path, config: PrepareConfig, sources: list[Source], recipe: dict[str, Any], report: Report
) -> None:
    """Write tokenizer, shards and manifest into the empty folder `place`."""
    work = place / "work"
    work.mkdir()
    enough = None if config.max_tokens is None else 16 * config.max_tokens + (1 << 20)
    with collect(sources, work, config.seed, report, enough, config.skip_bad) as spool:
        _warn(sources, spool)
        training, validation = split(spool, config.validation_share, config.seed)
        training = mix(spool, training, config.seed)
        tokenizer = _tokenizer(config, spool, training, report)
        value = _write(place, config, sources, spool, (training, validation), tokenizer, report)
    shutil.rmtree(work)
    value["recipe"] = recipe
    value["manifest_hash"] = Manifest.parse(value).content_hash()
    write_json(place / MANIFEST, value)


def _warn(sources: list[Source], spool: Spool) -> None:
    """Report on stderr which files and rows were left out."""
    for source, skips in zip(sources, spool.skips, strict=True):
        if source.left_out:
            more = len(source.left_out) - MOST_NAMED
            shown = ", ".join(source.left_out[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
            files = "1 file" if len(source.left_out) == 1 else f"{len(source.left_out)} files"
            warn(f"source {source.name}: left out {files} of no known kind of text: {shown}")
        if skips.count:
            shown = "; ".join(skips.examples) + ("; ..." if skips.count > len(skips.examples) else "")
            rows = "1 bad row" if skips.count == 1 else f"{skips.count} bad rows"
            warn(f"source {source.name}: left out {rows}: {shown}")


def _write(
    place: Path,
    config: PrepareConfig,
    sources: list[Source],
    spool: Spool,
    splits: tuple[Ledger, list[Document]],
    tokenizer: "Tokenizer",
    report: Report,
) -> dict[str, Any]:
    """Write tokenizer and shards. Returns the manifest, without recipe and hash."""
    training, validation = splits
    tokenizer.save(str(place / TOKENIZER))
    end = end_of_text_id(tokenizer, config.end_of_text)
    trained = config.tokenizer is None
    check = LosslessCheck(
        tokenizer, [source.name for source in sources], trained=trained, allow_lossy=config.allow_lossy
    )
    vocab_size = len(check.lengths)
    dtype = token_dtype(vocab_size)
    whole = sum(training.bytes)
    with ShardWriter(place, "train", dtype) as writer:
        stage = "encode training text"
        train_tally = write_tokens(
            spool, training, whole, tokenizer, end, check, writer, config.max_tokens, report, stage
        )
    shards = [{**asdict(file), "split": "train"} for file in writer.files]
    check.spelled_bytes = [0] * len(sources)
    validation = _shorten(validation, whole, train_tally, config, len(sources))
    held = sum(document.length for document in validation)
    with ShardWriter(place, "validation", dtype) as writer:
        stage = "encode held-out text"
        tally = write_tokens(spool, validation, held, tokenizer, end, check, writer, None, report, stage)
    shards += [{**asdict(file), "split": "validation"} for file in writer.files]
    value: dict[str, Any] = {
        "format": FORMAT,
        "manifest_hash": "",
        "vocab_size": vocab_size,
        "token_dtype": dtype.str,
        "end_of_text": end,
        "tokenizer_sha256": sha256_file(place / TOKENIZER),
        "tokenizer_origin": "trained" if trained else "given",
        "seed": config.seed,
        "duplicates_dropped": spool.duplicates,
        "shards": shards,
        "sources": _source_infos(sources, spool, train_tally, tally, check),
    }
    if not trained:
        value["lossy"] = {"texts": check.changed} | ({"example": check.example} if check.example else {})
    if check.changed:
        warn(
            f"the tokenizer changes the text of {check.changed} documents or parts of them ({check.example}); bits per "
            "byte cannot be compared with those of other tokenizers"
        )
    return value


def _tokenizer(config: PrepareConfig, spool: Spool, train: Ledger, report: Report) -> "Tokenizer":
    """The given tokenizer, or one trained on a sample: the first 4-64 MiB of the mixed training text."""
    if config.tokenizer is not None:
        return config.load_tokenizer()
    most = min(max(config.vocab_size << 13, 4 << 20), 64 << 20)
    return train_tokenizer(_sample(spool, train, most), config.vocab_size, report, min(most, sum(train.bytes)))


def _sample(spool: Spool, documents: Ledger, most: int) -> Iterator[str]:
    """The first documents, until they have `most` bytes; the last one is whole unless it is very long."""
    total = 0
    for document in documents:
        if total >= most:
            return
        total += document.length
        read = 0
        for part in spool.parts(document, _WHOLE):
            yield part
            read += len(part)
            if read >= most:
                return


def _shorten(
    validation: list[Document], train_bytes: int, tally: list[Tally], config: PrepareConfig, n_sources: int
) -> list[Document]:
    """Held-out documents source by source; shortened as much as `max_tokens` shortened the training text."""
    used = sum(part.bytes for part in tally)
    bytes_per_token = used / max(sum(part.tokens for part in tally), 1)
    whole = sum(document.length for document in validation)
    share = used / max(train_bytes, 1)
    share = max(share, LEAST_VALIDATION_TOKENS * bytes_per_token / max(whole, 1))
    result: list[Document] = []
    for source in range(n_sources):
        own = [document for document in validation if document.source == source]
        left = share * sum(document.length for document in own)
        for document in own:
            if left <= 0 and config.max_tokens is not None:
                break
            result.append(document)
            left -= document.length
    return result


def _source_infos(
    sources: list[Source], spool: Spool, train: list[Tally], validation: list[Tally], check: LosslessCheck
) -> list[dict[str, Any]]:
    infos: list[dict[str, Any]] = []
    start = 0
    for index, source in enumerate(sources):
        held, spelled = validation[index], check.spelled_bytes[index]
        info: dict[str, Any] = {"name": source.name, "licence": source.licence}
        if source.package is not None:
            info |= {"version": source.package.version, "sha256": source.package.sha256}
        if source.left_out:
            info["files_left_out"] = len(source.left_out)
        if spool.skips[index].count:
            info["rows_left_out"] = spool.skips[index].count
        if spelled and spelled != held.bytes:
            info["bytes_per_spelled_byte"] = held.bytes / spelled
        infos.append(info | {"train": asdict(train[index]), "validation": asdict(held), "validation_start": start})
        start += held.tokens
    return infos
