"""A prepared folder: its manifest (what is in it, whose it is, what it hashes to) and the tokens behind it."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from moelab.config import Config
from moelab.data.integrity import Stamp, check_hashes
from moelab.data.lossless import change_of_probe
from moelab.data.shards import TokenStream
from moelab.data.tokenizer import load_prepared, token_bytes
from moelab.errors import InputError
from moelab.files import expect_content, read_json, sha256_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
FORMAT = 1
_CHECKED = 1 << 24
"""Tokens whose ids are looked at together."""


class Part(Config):
    """What one source gave to one split. `tokens` counts end-of-text tokens; `bytes` is the text alone."""

    documents: int
    tokens: int
    bytes: int


class SourceInfo(Config):
    """A source and its parts; its validation tokens are one stretch of the validation shard from `validation_start`.

    `files_left_out` and `rows_left_out` were not read. `bytes_per_spelled_byte` stands where the tokenizer changed the
    held-out text: its own bytes over the bytes that its tokens spell.
    """

    name: str
    licence: str
    version: str | None = None
    sha256: str | None = None
    files_left_out: int = 0
    rows_left_out: int = 0
    bytes_per_spelled_byte: float = 1.0
    train: Part
    validation: Part
    validation_start: int


class Shard(Config):
    """One token file."""

    file: str
    split: Literal["train", "validation"]
    tokens: int
    sha256: str


class Lossy(Config):
    """How many documents (or parts of long ones) a given tokenizer changed, and the first of them."""

    texts: int
    example: str | None = None


class Manifest(Config):
    """Everything about a prepared folder. `manifest_hash` covers content only: no path, no name, no time."""

    format: int = FORMAT
    manifest_hash: str
    vocab_size: int
    token_dtype: Literal["<u2", "<u4"]
    end_of_text: int
    tokenizer_sha256: str
    tokenizer_origin: Literal["trained", "given"]
    seed: int
    duplicates_dropped: int
    shards: tuple[Shard, ...]
    sources: tuple[SourceInfo, ...]
    lossy: Lossy | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)

    def content_hash(self) -> str:
        """The hash of what a training run can see: tokens, tokenizer, and which validation tokens are whose."""
        content: dict[str, Any] = {
            "format": self.format,
            "vocab_size": self.vocab_size,
            "end_of_text": self.end_of_text,
            "tokenizer": self.tokenizer_sha256,
            "shards": [[shard.split, shard.tokens, shard.sha256] for shard in self.shards],
            "validation": [[source.validation_start, source.validation.tokens] for source in self.sources],
        }
        scales = [source.bytes_per_spelled_byte for source in self.sources]
        if any(scale != 1 for scale in scales):
            content["bytes_per_spelled_byte"] = scales
        return sha256_json(content)

    def total(self, split: Literal["train", "validation"]) -> Part:
        """Documents, tokens and bytes of all sources in one split."""
        parts = [getattr(source, split) for source in self.sources]
        keys = ("documents", "tokens", "bytes")
        return Part.parse({key: sum(getattr(part, key) for part in parts) for key in keys})

    @property
    def bytes_per_token(self) -> float:
        """Bytes of text per token, end-of-text tokens counted, over both splits."""
        train, validation = self.total("train"), self.total("validation")
        return (train.bytes + validation.bytes) / (train.tokens + validation.tokens)


class Dataset:
    """A prepared folder, opened. `train` and `validation` are token streams; `manifest` describes them."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.train = self._stream("train")
        self.validation = self._stream("validation")

    @classmethod
    def open(cls, folder: str | Path, verify: bool = False) -> "Dataset":
        """Open a prepared folder, checking manifest, tokenizer and every file's size; `verify` also checks every hash.

        Raises InputError naming the file that is missing, truncated or changed.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            raise InputError(f"data: {folder} holds no prepared data (make it with `moelab data prepare`)")
        value = read_json(folder / MANIFEST, "data")
        if isinstance(value, dict) and value.get("format") != FORMAT:
            raise InputError(f"data: {folder} has format {value.get('format')}, this version reads format {FORMAT}")
        manifest = Manifest.parse(value, str(folder / MANIFEST))
        if manifest.content_hash() != manifest.manifest_hash:
            raise InputError(f"data: {folder / MANIFEST} was changed: its content does not match its manifest_hash")
        dataset = cls(folder, manifest)
        if not dataset.tokenizer_path.is_file():
            raise InputError(f"data: {dataset.tokenizer_path} is missing")
        check_hashes(folder, {TOKENIZER: manifest.tokenizer_sha256})
        if verify:
            dataset.verify()
        return dataset

    def verify(self, always: bool = True) -> bool:
        """Hash every file and look for ids beyond the vocabulary; whether that was done now.

        Without `always` a folder is passed that was verified and not changed since. Raises InputError naming the file
        that differs from the manifest, or the token.
        """
        files = {shard.file: shard.sha256 for shard in self.manifest.shards}
        files[TOKENIZER] = self.manifest.tokenizer_sha256
        stamp = Stamp(self.folder, self.manifest.manifest_hash, files)
        if not always and stamp.holds():
            return False
        try:
            check_hashes(self.folder, files)
            self._check_ids("train", "validation")
        except InputError:
            stamp.drop()
            raise
        stamp.put()
        return True

    def verify_validation(self) -> None:
        """Hash the held-out tokens, which are few, whether or not they were before. Raises InputError as `verify`."""
        check_hashes(self.folder, {each.file: each.sha256 for each in self.manifest.shards if each.split != "train"})
        self._check_ids("validation")

    def _check_ids(self, *splits: Literal["train", "validation"]) -> None:
        """Raises InputError where a token's id is beyond the vocabulary: models would read outside their tables."""
        for split in splits:
            name, stream = ("training", self.train) if split == "train" else (split, self.validation)
            for start in range(0, len(stream), _CHECKED):
                largest = int(stream.read(start, min(_CHECKED, len(stream) - start)).max())
                if largest >= self.vocab_size:
                    raise InputError(
                        f"data: {self.folder}: the {name} tokens hold the id {largest}; the manifest's vocab_size "
                        f"allows 0 to {self.vocab_size - 1}"
                    )

    def load_tokenizer(self) -> "Tokenizer":
        """The tokenizer that made the tokens; `manifest.end_of_text` is the id that ends a text."""
        return load_prepared(self.tokenizer_path)

    def notes(self) -> list[str]:
        """What a reader of bits per byte has to know: whether the tokenizer changed the text, or may have.

        Version 0.1 did not look; of its folders with a given tokenizer a short text is tried.
        """
        lossy = self.manifest.lossy
        if lossy is None and self.manifest.tokenizer_origin == "given":
            difference = change_of_probe(self.load_tokenizer())
            if difference is not None:
                return [f"data: the tokenizer may have changed the text ({difference}): bits per byte may be too low"]
        if lossy is None or not lossy.texts:
            return []
        return [
            f"data: the tokenizer changed {lossy.texts} texts ({lossy.example}): bits per byte cannot be compared with "
            "those of other tokenizers"
        ]

    @property
    def vocab_size(self) -> int:
        return self.manifest.vocab_size

    @property
    def manifest_hash(self) -> str:
        return self.manifest.manifest_hash

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json that made the tokens."""
        return self.folder / TOKENIZER

    @cached_property
    def token_bytes(self) -> NDArray[np.int64]:
        """Bytes of text in each token, shape (vocab_size,); the end-of-text token has none."""
        with expect_content(f"data: {self.tokenizer_path} is not the tokenizer of this data"):
            lengths = token_bytes(read_json(self.tokenizer_path, "data"), self.vocab_size)
        lengths[self.manifest.end_of_text] = 0
        return lengths

    def _stream(self, split: str) -> TokenStream:
        shards = [shard for shard in self.manifest.shards if shard.split == split]
        paths = [self.folder / shard.file for shard in shards]
        return TokenStream(paths, [shard.tokens for shard in shards], np.dtype(self.manifest.token_dtype))
