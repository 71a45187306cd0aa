"""Held-out batches: tokens meet as many others as in training, and nothing changes where they meet none."""

from typing import Any

import pytest

from moelab.architecture import ModelConfig
from moelab.data import Dataset
from moelab.evaluation import validation_batches


@pytest.mark.parametrize(
    ("moe", "max_tokens", "rows"),
    [
        (None, 40 * 8, {32}),
        ({}, 40 * 8, {32}),
        ({"capacity_factor": 2.0}, 40 * 8, {32}),
        ({"capacity_factor": 1.0}, 40 * 8, {6}),
        ({"capacity_factor": 1.0}, 8, {6}),
        ({"router": "expert_choice"}, 40 * 8, {6}),
        ({"router": "expert_choice", "grouping": "sequence"}, 40 * 8, {32}),
        ({"router": "expert_choice", "group_size": 6}, 40 * 8, {30}),
        ({"router": "expert_choice", "group_size": 6}, 29 * 8, {24}),
        ({"router": "expert_choice", "group_size": 6}, 8, {6}),
        ({"router": "soft", "group_size": 36}, 40 * 8, {36}),
        ({"router": "mixture_of_tokens", "group_size": 2}, 31 * 8, {30}),
    ],
    ids=str,
)
def test_rows(dataset: Dataset, moe: dict[str, Any] | None, max_tokens: int, rows: set[int]) -> None:
    sizes: dict[str, Any] = {"vocab_size": 300, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 8}
    if moe is not None:
        sizes["moe"] = {"n_experts": 4, "top_k": 2, "d_expert": 8, **moe}
    batches = validation_batches(dataset, ModelConfig.parse(sizes), seq_len=8, trained_rows=6, max_tokens=max_tokens)
    assert {len(batch.inputs) for batch in batches} == rows
