"""What columns of a table can be mapped to on the fit page, with the labels of these fields and their units."""

VARIABLES = {
    "loss": "Loss, nats per token",
    "params_total": "Parameters",
    "params_active": "Active parameters",
    "tokens": "Training tokens",
    "unique_tokens": "Unique tokens",
    "n_experts": "Experts",
    "top_k": "Experts of a token",
    "granularity": "Granularity",
    "train_flops": "Training FLOPs",
}
"""What columns can be mapped to, and their labels."""
UNITS = {"1": 1.0, "thousands": 1e3, "millions": 1e6, "billions": 1e9, "trillions": 1e12}
