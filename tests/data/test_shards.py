"""Token files written in parts read back as one sequence, also across the seams."""

from pathlib import Path

import numpy as np
import pytest

from moelab.data.shards import ShardWriter, TokenStream, token_dtype
from moelab.errors import InputError
from moelab.files import sha256_file


def write(folder: Path, tokens: list[list[int]], vocab_size: int, shard_tokens: int) -> TokenStream:
    dtype = token_dtype(vocab_size)
    with ShardWriter(folder, "train", dtype, shard_tokens) as writer:
        for ids in tokens:
            writer.append(ids)
    assert all(sha256_file(folder / shard.file) == shard.sha256 for shard in writer.files)
    return TokenStream([folder / s.file for s in writer.files], [s.tokens for s in writer.files], dtype)


@pytest.mark.parametrize("shard_tokens", [1, 3, 7, 100])
def test_seams_between_files_do_not_show(tmp_path: Path, shard_tokens: int) -> None:
    stream = write(tmp_path, [[1, 2, 3, 4, 5], [], [6, 7], list(range(8, 24))], 512, shard_tokens)
    reference = np.arange(1, 24)
    assert len(stream) == 23
    for start in range(23):
        for length in range(1, 24 - start):
            assert stream.read(start, length).tolist() == reference[start : start + length].tolist()
    windows = stream.windows(np.array([4, 0, 18]), 5)
    assert windows.dtype == np.int64
    assert windows.tolist() == [[5, 6, 7, 8, 9], [1, 2, 3, 4, 5], [19, 20, 21, 22, 23]]


def test_large_ids_take_four_bytes(tmp_path: Path) -> None:
    assert token_dtype(65_536).itemsize == 2
    stream = write(tmp_path, [[0, 65_536, 99_999]], 100_000, 10)
    assert stream.read(0, 3).tolist() == [0, 65_536, 99_999]
    assert (tmp_path / "train_00000.bin").stat().st_size == 12


def test_a_truncated_or_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path, [[1, 2, 3]], 512, 10)
    path = tmp_path / "train_00000.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"train_00000\.bin has 5 bytes instead of 6: truncated"):
        TokenStream([path], [3], np.dtype("<u2"))
    path.unlink()
    with pytest.raises(InputError, match=r"cannot read .*train_00000\.bin"):
        TokenStream([path], [3], np.dtype("<u2"))
