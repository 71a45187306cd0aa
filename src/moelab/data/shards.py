"""Token files: little-endian uint16 or uint32 in .bin files, written in parts and read through memory maps."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError

SHARD_TOKENS = 1 << 28
"""Tokens per file: half a gigabyte of uint16."""


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The smallest unsigned type that holds every id."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


@dataclass(frozen=True)
class ShardFile:
    """One written file: its name, its number of tokens, the SHA-256 of its content."""

    file: str
    tokens: int
    sha256: str


class ShardWriter:
    """Append tokens to `NAME_00000.bin`, `NAME_00001.bin`, ... in a folder; `files` lists them once closed."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any], shard_tokens: int = SHARD_TOKENS) -> None:
        self.tokens = 0
        self.files: list[ShardFile] = []
        self._folder, self._name, self._dtype, self._shard_tokens = folder, name, dtype, shard_tokens
        self._stream: BinaryIO | None = None
        self._in_shard = 0

    def append(self, ids: Sequence[int] | NDArray[Any]) -> None:
        """Write these token ids after the ones before."""
        values = np.asarray(ids, dtype=self._dtype)
        self.tokens += len(values)
        while len(values):
            if self._stream is None:
                self._open()
            part = values[: self._shard_tokens - self._in_shard]
            self._write(part.tobytes())
            self._in_shard += len(part)
            values = values[len(part) :]
            if self._in_shard == self._shard_tokens:
                self.close()

    def close(self) -> None:
        """Finish the file that is being written."""
        if self._stream is not None:
            name = Path(self._stream.name).name
            self._stream.close()
            self._stream = None
            self.files.append(ShardFile(name, self._in_shard, self._digest.hexdigest()))

    def _open(self) -> None:
        path = self._folder / f"{self._name}_{len(self.files):05d}.bin"
        self._stream = open(path, "wb", buffering=1 << 20)  # noqa: SIM115
        self._digest = hashlib.sha256()
        self._in_shard = 0

    def _write(self, content: bytes) -> None:
        assert self._stream is not None
        self._stream.write(content)
        self._digest.update(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TokenStream:
    """The tokens of several shard files as one long sequence, read through memory maps."""

    def __init__(self, paths: Sequence[Path], lengths: Sequence[int], dtype: np.dtype[Any]) -> None:
        self._maps = [_map(path, length, dtype) for path, length in zip(paths, lengths, strict=True)]
        self._ends = [0, *accumulate(lengths)]

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, start: int, length: int) -> NDArray[Any]:
        """Tokens start .. start + length, in the type of the file; a view of the map where one file holds them."""
        index = bisect_right(self._ends, start) - 1
        inside = start - self._ends[index]
        part = self._maps[index][inside : inside + length]
        if len(part) == length:
            return part
        return np.concatenate([part, self.read(start + len(part), length - len(part))])

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The stretches of `length` tokens at each start, shape (len(starts), length), as int64."""
        result = np.empty((len(starts), length), dtype=np.int64)
        for row, start in enumerate(starts.tolist()):
            result[row] = self.read(start, length)
        return result


def _map(path: Path, length: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Map one shard. Raises InputError naming the file where it is missing or not of the recorded size."""
    try:
        size = path.stat().st_size
        if size != length * dtype.itemsize:
            expected = length * dtype.itemsize
            raise InputError(f"data: {path} has {size} bytes instead of {expected}: truncated or replaced")
        return np.asarray(np.memmap(path, dtype=dtype, mode="r")) if length else np.empty(0, dtype=dtype)
    except OSError as error:
        raise InputError(f"data: cannot read {path}: {error.strerror or error}") from error
