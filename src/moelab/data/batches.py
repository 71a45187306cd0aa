"""Training batches as a pure function of the seed and the step, and the fixed set of validation batches.

Training text is the first `unique_tokens` tokens of the training stream. `prepare` writes that stream as a fair mixture
at every length, so a smaller subset is part of every larger one and neither depends on seed or sequence length. Each
epoch goes once through all windows of the subset in a new order; nothing has to be remembered to resume.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moelab.data.dataset import Dataset
from moelab.data.permutation import permute
from moelab.errors import InputError

_BLOCK = 4096
"""Entries of an epoch's order that are worked out together."""


class TrainBatches:
    """Batches of a data set's training text. Everything about the batch of a step follows from (seed, step).

    The unique tokens are cut in windows of `seq_len`; where they do not divide, the last window is shorter and ends
    each epoch. Rows are cut from the endless sequence of shuffled epochs, so epochs are exact to the token.
    """

    def __init__(
        self, dataset: Dataset, seq_len: int, batch_size: int, seed: int, unique_tokens: int | None = None
    ) -> None:
        """`unique_tokens` None means all whole windows. Raises InputError where the data holds fewer tokens."""
        available = len(dataset.train) - 1
        if seq_len < 1 or batch_size < 1:
            raise InputError(f"seq_len and batch_size must be at least 1, got {seq_len} and {batch_size}")
        if unique_tokens is None:
            unique_tokens = available // seq_len * seq_len
            if unique_tokens == 0:
                raise InputError(f"seq_len: {dataset.folder} has {available} training tokens, {seq_len} asked")
        if not 1 <= unique_tokens <= available:
            raise InputError(f"unique_tokens: must be 1 to {available} (all of {dataset.folder}), got {unique_tokens}")
        self.unique_tokens = unique_tokens
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.seed = seed
        self._dataset, self._stream = dataset, dataset.train
        self._whole = unique_tokens // seq_len
        self._blocks: dict[tuple[int, int], NDArray[np.int64]] = {}

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.seq_len

    def epochs_at(self, step: int) -> float:
        """How many times the unique tokens have been seen before this step."""
        return step * self.tokens_per_step / self.unique_tokens

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and targets (the next tokens) of a step, each int64 of shape (batch_size, seq_len)."""
        inputs = np.empty((self.batch_size, self.seq_len), dtype=np.int64)
        targets = np.empty_like(inputs)
        for row in range(self.batch_size):
            position, filled = (step * self.batch_size + row) * self.seq_len, 0
            while filled < self.seq_len:
                start, length = self._stretch(position + filled)
                end = min(filled + length, self.seq_len)
                tokens = self._stream.read(start, end - filled + 1)
                inputs[row, filled:end] = tokens[:-1]
                targets[row, filled:end] = tokens[1:]
                filled = end
        check_ids(self._dataset, inputs, targets[:, -1])
        return inputs, targets

    def _stretch(self, position: int) -> tuple[int, int]:
        """First token and length of what is left of the window at a position in the endless sequence."""
        epoch, offset = divmod(position, self.unique_tokens)
        slot, inside = divmod(offset, self.seq_len)
        if slot == self._whole:
            return slot * self.seq_len + inside, self.unique_tokens - offset
        return self.window(epoch, slot) * self.seq_len + inside, self.seq_len - inside

    def window(self, epoch: int, slot: int) -> int:
        """Which window stands at a place of an epoch's order."""
        number, place = divmod(slot, _BLOCK)
        block = self._blocks.get((epoch, number))
        if block is None:
            entries = np.arange(number * _BLOCK, min((number + 1) * _BLOCK, self._whole))
            block = permute(entries, self._whole, _epoch_key(self.seed, epoch))
            if len(self._blocks) >= 4:
                self._blocks = {}
            self._blocks[epoch, number] = block
        return int(block[place])


def _epoch_key(seed: int, epoch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"epoch:{seed}:{epoch}".encode()).digest()[:8], "little")


@dataclass(frozen=True)
class ValidationBatch:
    """Windows of held-out text: inputs and targets (rows, seq_len), and for each row its source and bytes of text.

    `bytes` counts the text of the row's targets; an end-of-text token is a target without bytes. Where the tokenizer
    changed the text, they are scaled to the documents' own bytes. Bits per byte = summed nats of all targets /
    (ln 2 x summed bytes).
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    source: NDArray[np.int64]
    bytes: NDArray[np.int64]


class ValidationBatches:
    """The same held-out windows every time: evenly spread over each source, sources in proportion to their size.

    Every source with at least one whole window is represented. `sources` are the names that `source` indexes.
    Batches are full, except where the data has fewer windows than one batch.
    """

    def __init__(self, dataset: Dataset, seq_len: int, batch_size: int, max_tokens: int | None = None) -> None:
        """Raises InputError where the held-out text is shorter than one window, or `max_tokens` too small."""
        if seq_len < 1 or batch_size < 1:
            raise InputError(f"seq_len and batch_size must be at least 1, got {seq_len} and {batch_size}")
        self.sources = tuple(source.name for source in dataset.manifest.sources)
        infos = dataset.manifest.sources
        available = np.array([max(info.validation.tokens - 1, 0) // seq_len for info in infos])
        total = int(available.sum())
        wanted = total if max_tokens is None else min(total, max_tokens // seq_len)
        if wanted > batch_size:
            wanted -= wanted % batch_size
        if wanted < 1:
            raise InputError(f"seq_len: the held-out text of {dataset.folder} gives no window of {seq_len} tokens")
        counts = share_out(wanted, available)
        slots = [spread(int(n), int(most)) for n, most in zip(counts, available, strict=True)]
        starts = [own * seq_len + info.validation_start for own, info in zip(slots, infos, strict=True)]
        self._starts = np.concatenate(starts)
        self._source = np.repeat(np.arange(len(infos)), counts)
        self._dataset, self._stream, self._token_bytes = dataset, dataset.validation, dataset.token_bytes
        self._scale = np.array([info.bytes_per_spelled_byte for info in infos])
        self.seq_len, self.batch_size = seq_len, batch_size

    @property
    def tokens(self) -> int:
        """Targets in all batches together."""
        return len(self._starts) * self.seq_len

    def __len__(self) -> int:
        return -(-len(self._starts) // self.batch_size)

    def __iter__(self) -> Iterator[ValidationBatch]:
        for begin in range(0, len(self._starts), self.batch_size):
            rows = slice(begin, begin + self.batch_size)
            windows = self._stream.windows(self._starts[rows], self.seq_len + 1)
            check_ids(self._dataset, windows)
            targets = windows[:, 1:]
            spelled = self._token_bytes[targets].sum(axis=1)
            yield ValidationBatch(
                np.ascontiguousarray(windows[:, :-1]),
                np.ascontiguousarray(targets),
                self._source[rows],
                np.rint(spelled * self._scale[self._source[rows]]).astype(np.int64),
            )


def check_ids(dataset: Dataset, *tokens: NDArray[np.int64]) -> None:
    """Raises InputError for an id beyond the vocabulary: a model has no row for it."""
    largest = max(int(part.max()) for part in tokens)
    if largest >= dataset.vocab_size:
        raise InputError(
            f"data: {dataset.folder} holds the token id {largest}; its vocabulary ends at {dataset.vocab_size - 1}"
        )


def spread(count: int, available: int) -> NDArray[np.int64]:
    """`count` of the numbers 0 .. available-1, evenly spaced."""
    return (2 * np.arange(count) + 1) * available // max(2 * count, 1)


def share_out(wanted: int, available: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers that sum to `wanted`, in proportion to `available` and not above it.

    One at least for each that has any, where `wanted` suffices for that.
    """
    exact = wanted * available / available.sum()
    least = int(wanted >= np.count_nonzero(available))
    counts = np.minimum(np.maximum(np.floor(exact).astype(np.int64), available > 0), available)
    while counts.sum() > wanted:
        counts[np.argmax(np.where(counts > least, counts - exact, -np.inf))] -= 1
    while counts.sum() < wanted:
        counts[np.argmax(np.where(counts < available, exact - counts, -np.inf))] += 1
    return counts
