"""What a run asks of its data, checked without torch: the hash, the vocabulary, the number of training tokens."""

from moelab.data.dataset import Dataset
from moelab.errors import InputError
from moelab.runs import RunConfig


def check_data(config: RunConfig, dataset: Dataset) -> None:
    """Raises InputError naming the field that this data cannot serve."""
    data = config.data
    if data.manifest_hash not in (None, dataset.manifest_hash):
        raise InputError(f"data.manifest_hash: the data in {data.path} has another hash ({dataset.manifest_hash})")
    if config.model.vocab_size < dataset.vocab_size:
        raise InputError(f"model.vocab_size: must be at least the data's {dataset.vocab_size}")
    available = len(dataset.train) - 1
    if data.unique_tokens is not None and data.unique_tokens > available:
        raise InputError(f"data.unique_tokens: must be at most {available}, the training tokens in {data.path}")
