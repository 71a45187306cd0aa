"""Before the first step: the routing vocabulary of hash and word experts, from the text that the run will see."""

from collections.abc import Iterator

import torch
from torch import Tensor

from moelab.data import Dataset
from moelab.data.tokenizer import word_parts
from moelab.files import expect_content, read_json
from moelab.model import LanguageModel
from moelab.model.routing_vocabulary import fill_routing_tables

COUNTED = 20_000_000
"""Training tokens whose words are counted, at most."""
_CHUNK = 1_000_000


def count_vocabulary(model: LanguageModel, dataset: Dataset, unique_tokens: int | None) -> None:
    """Fill the tables of a model that has any from the first `unique_tokens` of the training text."""
    moe = model.config.moe
    if moe is None or moe.routing_vocab is None:
        return
    size = min(unique_tokens or len(dataset.train), len(dataset.train), COUNTED)
    parts = None
    if model.routes_by_words:
        with expect_content(f"data: {dataset.tokenizer_path} is not the tokenizer of this data"):
            found = word_parts(read_json(dataset.tokenizer_path, "data"), model.config.vocab_size)
        parts = torch.from_numpy(found)
    fill_routing_tables(model, _chunks(dataset, size), parts)


def _chunks(dataset: Dataset, size: int) -> Iterator[Tensor]:
    for start in range(0, size, _CHUNK):
        yield torch.from_numpy(dataset.train.read(start, min(_CHUNK, size - start)).astype("int64"))
