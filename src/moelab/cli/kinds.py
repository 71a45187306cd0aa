"""What an option takes, as `--help` names it: one name of a parameter, one kind, in every command."""

KINDS: dict[str, tuple[str, ...]] = {
    "flops": ("flops", "flops_each", "at"),
    "count": (
        "max_params", "max_active", "max_tokens", "unique_tokens", "serve_tokens", "tokens", "vocab_size", "context",
        "seq_len", "gpus", "serve_gpus", "micro_batch", "max_batch", "batch", "output", "workers", "processes", "top",
        "next_runs", "bootstrap", "starts", "draws", "trials", "max_new_tokens", "top_k", "draft", "port",
        "target_experts", "price_like_experts",
    ),
    "number": (
        "max_epochs", "min_tokens_per_active", "max_tokens_per_active", "min_tokens_per_total", "days", "imbalance",
        "temperature", "seed",
    ),
    "share": ("within", "holdout", "validation_share", "cached", "acceptance", "top_p", "tolerance"),
    "share or path": ("mfu",),
    "loss": ("target_loss",),
    "bytes": ("max_memory",),
    "time": ("tpot", "ttft", "checkpoint_seconds"),
    "dollars": ("gpu_price", "train_gpu_price", "max_price"),
    "path": (
        "out", "plot", "plot_holdout", "report", "space", "fit_file", "law_file", "tables", "measured", "cache",
        "tokenizer", "data", "prior",
    ),
    "law": ("law",),
    "hardware": ("hardware", "train_hardware"),
    "config": ("near", "config", "against"),
    "precision": ("precision", "train_precision", "kv_precision", "dtype"),
    "full or causal": ("mfu_convention",),
    "kinds": ("kinds",),
    "objective": ("objective",),
    "layout": ("layout", "parallel"),
    "engine": ("engine",),
    "device": ("device",),
    "executor": ("executor",),
    "tracker": ("log",),
    "format": ("to",),
    "column": ("loss", "group", "weight", "sort", "x", "by", "holdout_by", "text_field"),
    "columns": ("columns", "best_of"),
    "batches": ("graph_sizes",),
    "name=expression": ("let",),
    "condition": ("where", "holdout_where"),
    "name=value": ("fix", "settings"),
    "names": ("share", "equal"),
    "source": ("source",),
    "name": ("name",),
    "text": ("prompt", "end_of_text"),
    "pattern": ("pattern",),
    "address": ("host", "allow_host", "allow_frame"),
}  # fmt: skip
"""Kinds with the names of their parameters in the commands' functions."""

_ELSEWHERE = {("plan", "prompt"): "count", ("serving", "prompt"): "count"}
"""(command, parameter) of those that mean something else in one command."""


def kind_of(command: str | None, parameter: str | None) -> str | None:
    """The kind of a command's option; None for one that has none."""
    found = _ELSEWHERE.get((str(command), str(parameter)))
    return found or next((kind for kind, names in KINDS.items() if parameter in names), None)
