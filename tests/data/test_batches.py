"""Batches are functions of seed and step; epochs and unique tokens are exact; validation is fixed and complete."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moelab.data import Dataset, TrainBatches, ValidationBatches, load_tokenizer
from moelab.data.batches import share_out, spread
from moelab.errors import InputError


def test_targets_are_the_next_tokens(dataset: Dataset) -> None:
    batches = TrainBatches(dataset, 32, 4, seed=0)
    stream = dataset.train.read(0, len(dataset.train)).tolist()
    for step in range(10):
        inputs, targets = batches.batch(step)
        assert inputs.shape == targets.shape == (4, 32)
        assert inputs.dtype == targets.dtype == np.int64
        for row, following in zip(inputs.tolist(), targets.tolist(), strict=True):
            assert any(stream[start : start + 33] == [*row, following[-1]] for start in range(0, len(stream) - 32, 32))


def test_a_batch_depends_on_seed_and_step_alone(dataset: Dataset) -> None:
    batches = TrainBatches(dataset, 16, 8, seed=5)
    forward = [batches.batch(step)[0] for step in range(40)]
    fresh = TrainBatches(Dataset.open(dataset.folder), 16, 8, seed=5)
    for step in (39, 0, 17):
        assert np.array_equal(fresh.batch(step)[0], forward[step])
    assert not np.array_equal(TrainBatches(dataset, 16, 8, seed=6).batch(0)[0], forward[0])


def endless(batches: TrainBatches, tokens: int) -> np.ndarray:
    steps = -(-tokens // batches.tokens_per_step)
    return np.concatenate([batches.batch(step)[0].ravel() for step in range(steps)])[:tokens]


@given(unique=st.integers(1, 700), seq_len=st.integers(1, 50), batch_size=st.integers(1, 5), seed=st.integers(0, 9))
def test_every_epoch_sees_every_unique_token_once(
    dataset: Dataset, unique: int, seq_len: int, batch_size: int, seed: int
) -> None:
    """Exact to the token, for any sizes: each epoch's tokens are a rearrangement of the first `unique` ones."""
    batches = TrainBatches(dataset, seq_len, batch_size, seed, unique)
    seen = endless(batches, 3 * unique).reshape(3, unique)
    expected = np.sort(dataset.train.read(0, unique))
    for epoch in seen:
        assert np.array_equal(np.sort(epoch), expected)
    assert batches.epochs_at(7) == pytest.approx(7 * seq_len * batch_size / unique)


def test_targets_follow_inputs_where_windows_do_not_divide(dataset: Dataset) -> None:
    """The dumb reference: walk each epoch's windows one token at a time."""
    seq_len, unique = 7, 40
    batches = TrainBatches(dataset, seq_len, 3, seed=1, unique_tokens=unique)
    stream = dataset.train.read(0, unique + 1).astype(np.int64)
    inputs, targets = [], []
    for epoch in range(4):
        for slot in range(unique // seq_len):
            start = batches.window(epoch, slot) * seq_len
            inputs += stream[start : start + seq_len].tolist()
            targets += stream[start + 1 : start + seq_len + 1].tolist()
        last = unique // seq_len * seq_len
        inputs += stream[last:unique].tolist()
        targets += stream[last + 1 : unique + 1].tolist()
    pairs = [batches.batch(step) for step in range(len(inputs) // 21)]
    assert np.concatenate([pair[0].ravel() for pair in pairs]).tolist() == inputs[: 21 * len(pairs)]
    assert np.concatenate([pair[1].ravel() for pair in pairs]).tolist() == targets[: 21 * len(pairs)]


def test_epochs_are_reshuffled(dataset: Dataset) -> None:
    batches = TrainBatches(dataset, 16, 1, seed=0, unique_tokens=16 * 64)
    first, second = endless(batches, 2 * 16 * 64).reshape(2, -1)
    assert not np.array_equal(first, second)


def test_smaller_subsets_are_part_of_larger_ones_for_any_seed_and_length(dataset: Dataset) -> None:
    for unique in (100, 1000, 5000):
        for seq_len, seed in ((10, 0), (25, 1)):
            seen = endless(TrainBatches(dataset, seq_len, 2, seed, unique), unique)
            assert np.array_equal(np.sort(seen), np.sort(dataset.train.read(0, unique)))


def test_by_default_all_whole_windows_are_used(dataset: Dataset) -> None:
    batches = TrainBatches(dataset, 100, 2, seed=0)
    assert batches.unique_tokens == (len(dataset.train) - 1) // 100 * 100


def test_impossible_batches(dataset: Dataset) -> None:
    tokens = len(dataset.train)
    with pytest.raises(InputError, match=f"unique_tokens: must be 1 to {tokens - 1}"):
        TrainBatches(dataset, 16, 2, seed=0, unique_tokens=tokens)
    with pytest.raises(InputError, match="unique_tokens"):
        TrainBatches(dataset, 16, 2, seed=0, unique_tokens=0)
    with pytest.raises(InputError, match="at least 1"):
        TrainBatches(dataset, 16, 0, seed=0)
    with pytest.raises(InputError, match="training tokens"):
        TrainBatches(dataset, tokens, 1, seed=0)
    with pytest.raises(InputError, match="gives no window"):
        ValidationBatches(dataset, 10**6, 1)
    with pytest.raises(InputError, match="gives no window"):
        ValidationBatches(dataset, 64, 1, max_tokens=63)


def test_validation_bytes_are_those_of_the_text(dataset: Dataset) -> None:
    tokenizer = load_tokenizer(dataset.tokenizer_path)
    end = dataset.manifest.end_of_text
    for batch in ValidationBatches(dataset, 24, 8):
        for row, size in zip(batch.targets.tolist(), batch.bytes.tolist(), strict=True):
            raw = b"".join(_bytes_of(tokenizer.id_to_token(token)) for token in row if token != end)
            assert len(raw) == size


def _bytes_of(token: str) -> bytes:
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    letters = {chr(value): value for value in printable}
    letters |= {chr(256 + place): value for place, value in enumerate(sorted({*range(256)} - printable))}
    return bytes(letters[letter] for letter in token)


def test_validation_windows_are_fixed_and_belong_to_their_source(dataset: Dataset) -> None:
    validation = ValidationBatches(dataset, 16, 4, max_tokens=16 * 21)
    batches = list(validation)
    assert [len(batch.inputs) for batch in batches] == [4] * 5
    assert validation.tokens == 16 * 20 == sum(batch.targets.size for batch in batches)
    assert len(validation) == 5
    assert validation.sources == ("long", "short")
    assert {int(index) for batch in batches for index in batch.source} == {0, 1}
    for batch, again in zip(batches, ValidationBatches(dataset, 16, 4, max_tokens=16 * 21), strict=True):
        assert np.array_equal(batch.inputs, again.inputs)
        assert np.array_equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    for info, index in zip(dataset.manifest.sources, (0, 1), strict=True):
        own = dataset.validation.read(info.validation_start, info.validation.tokens).tolist()
        for batch in batches:
            for row in batch.inputs[batch.source == index].tolist():
                assert any(own[start : start + 16] == row for start in range(len(own)))


def test_one_small_batch_where_there_are_fewer_windows(dataset: Dataset) -> None:
    validation = ValidationBatches(dataset, 64, 10**5)
    assert [len(batch.inputs) for batch in validation] == [validation.tokens // 64]


@given(available=st.lists(st.integers(0, 500), min_size=1, max_size=6).filter(any), data=st.data())
def test_windows_are_shared_out_in_proportion(available: list[int], data: st.DataObject) -> None:
    have = np.array(available)
    wanted = data.draw(st.integers(1, int(have.sum())))
    counts = share_out(wanted, have)
    assert counts.sum() == wanted
    assert (counts <= have).all()
    assert (counts >= 0).all()
    if wanted >= 10 * len(available):
        assert (counts[have > 0] >= 1).all()
        assert np.abs(counts - wanted * have / have.sum()).max() <= len(available)


def test_the_smallest_keep_their_one_window() -> None:
    assert share_out(30, np.array([1, 1, 58])).tolist() == [1, 1, 28]
    assert share_out(1, np.array([1, 1, 58])).tolist() == [0, 0, 1]


@given(available=st.integers(1, 1000), data=st.data())
def test_chosen_windows_are_distinct(available: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, available))
    chosen = spread(count, available)
    assert len({*chosen.tolist()}) == count
    assert all(0 <= window < available for window in chosen)
