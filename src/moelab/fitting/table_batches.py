"""Batches in sequences where tokens are read: rules and plans take the batch in tokens."""

import numpy as np

from moelab.fitting.columns import Columns, finite_numbers
from moelab.fitting.findings import Finding
from moelab.fitting.table_columns import present, quoted

IN_TOKENS = ("batch_tokens", "tokens_per_batch", "batch_size_tokens")
UNNAMED = ("batch_size", "global_batch_size", "batch", "train_batch_size", "total_batch_size")
"""Columns of the batch in tokens, and those that leave the unit open."""
LENGTHS = ("seq_len", "sequence_length", "seq_length", "context_length", "block_size", "n_ctx", "max_seq_len")
LEAST_TOKENS, LEAST_PLAUSIBLE, MOST_STEPS = 4096.0, 16_384.0, 1e5
"""Tokens of a batch below which a run of more than so many steps is none, and below which a batch of an open unit is in
sequences: the smallest public runs have 65,536 tokens."""


def batch_findings(columns: Columns, target: str) -> list[Finding]:
    """Batches that look like sequences: of a column in tokens, or of one that varies and names no unit."""
    length = next(iter(present(columns, LENGTHS)), None)
    shortest = finite_numbers(columns, length) if length is not None else None
    trained = finite_numbers(columns, "tokens")
    found = []
    for name in present(columns, (*IN_TOKENS, *UNNAMED)):
        values = finite_numbers(columns, name)
        if values is None or not (values > 0).all():
            continue
        tokens = name in present(columns, IN_TOKENS)
        least = LEAST_TOKENS if tokens else LEAST_PLAUSIBLE
        if tokens and trained is not None and np.median(trained) < MOST_STEPS * np.median(values):
            least = 0.0  # a toy run of few tokens
        if tokens and shortest is not None:
            least = max(least, float(shortest.min()))
        if values.max() >= least or not (tokens or np.ptp(values) > 0):
            continue
        if not tokens and present(columns, IN_TOKENS):
            continue  # the tokens stand beside it
        low, high = f"{values.min():g}", f"{values.max():g}"
        span = low if low == high else f"{low} to {high}"
        times = quoted(length) if length is not None else "TOKENS_PER_SEQUENCE"
        text = f"{name}: {span} look like sequences, and rules for the batch are of tokens"
        target_name = "batch_tokens" if not tokens else name
        mend = f"--let '{target_name} = {quoted(name)} * {times}'"
        found.append(Finding(check="batch", text=text, mend=mend))
    return found
