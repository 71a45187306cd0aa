"""What figures call the columns of a table of runs."""

TITLES = {
    "params_total": "parameters",
    "params_active": "active parameters",
    "params_non_embedding": "parameters without embeddings",
    "params_active_non_embedding": "active parameters without embeddings",
    "tokens": "training tokens",
    "unique_tokens": "unique tokens",
    "train_flops": "training FLOPs",
    "n_experts": "experts",
    "top_k": "experts of a token",
}
"""Columns as axes name them; others by their own names."""


def titled(column: str) -> str:
    """A column's name as an axis shows it."""
    return TITLES.get(column, column)
