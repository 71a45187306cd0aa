"""In which group of `--help` an option stands: one name, one group, in every command."""

PANELS: dict[str, tuple[str, ...]] = {
    "Budget": (
        "flops", "gpus", "days", "train_hardware", "train_gpu_price", "train_precision", "mfu", "mfu_convention",
        "max_params", "max_active", "max_memory", "context",
        "max_tokens", "min_tokens_per_active", "max_tokens_per_active", "min_tokens_per_total", "unique_tokens",
        "max_epochs", "objective", "within", "target_loss", "target_experts",
        "space", "near", "kinds", "seq_len", "equal", "optimum", "causal",
    ),
    "Data": (
        "let", "where", "best_of", "sort", "columns", "loss", "x", "log", "by", "tolerance",
        "at", "surface", "source", "vocab_size", "tokenizer", "validation_share", "text_field", "cache", "data",
        "tokens", "settings", "config", "group", "weight", "batch", "trials", "verify", "name", "end_of_text",
        "pattern", "skip_bad", "allow_lossy",
    ),
    "Laws": (
        "law", "law_file", "extrapolate", "fit_file", "fix", "share", "holdout", "holdout_by", "holdout_where",
        "bootstrap", "starts", "prior", "draws", "noise", "against",
    ),
    "Serving": (
        "hardware", "precision", "kv_precision", "serve_tokens", "pay_serving", "prompt", "output", "tpot", "ttft",
        "serve_gpus", "gpu_price", "max_price", "price_like_experts", "imbalance", "tables", "engine", "parallel",
        "max_batch", "graph_sizes", "cached", "draft", "acceptance", "disaggregated", "device",
    ),
    "Training": (
        "train_memory", "layout", "micro_batch", "assign", "processes", "checkpoint_seconds", "adopt", "workers",
        "executor", "executor_option",
    ),
    "Server": ("port", "host", "allow_host", "allow_frame"),
    "Text": ("max_new_tokens", "temperature", "top_k", "top_p", "mixing", "from_start"),
    "Output": (
        "top", "next_runs", "flops_each", "out", "report", "plot", "plot_holdout", "markdown", "to", "dtype", "check",
        "force", "dry_run", "seed", "json", "as_json",
    ),
}  # fmt: skip
"""Groups in the order of `--help`, with the names of their parameters in the commands' functions."""

OTHERS = "Options"

_ELSEWHERE = {
    ("app", "processes"): "Server",
    ("train", "log"): "Training",
    ("serving", "gpus"): "Serving",
    ("compare", "gpus"): "Serving",
    ("serving", "batch"): "Serving",
    ("prepare", "max_tokens"): "Data",
    ("prepare", "seed"): "Data",
    ("fit", "seed"): "Laws",
    ("isoflop", "draws"): "Data",
    ("isoflop", "seed"): "Data",
    ("leaks", "seed"): "Data",
    ("leaks", "seq_len"): "Data",
    ("generate", "seed"): "Text",
    ("generate", "prompt"): "Text",
    ("predict", "seq_len"): "Data",
    ("count", "seq_len"): OTHERS,
    ("count", "causal"): OTHERS,
    ("count", "precision"): OTHERS,
    ("fit", "objective"): "Laws",
    ("laws", "settings"): "Budget",
}
"""(command, parameter) of those that mean something else in one command."""


def panel_of(command: str, parameter: str) -> str:
    """The group of a command's option; `Options` for one that has none, as those that every command has."""
    if (command, parameter) in _ELSEWHERE:
        return _ELSEWHERE[command, parameter]
    return next((panel for panel, names in PANELS.items() if parameter in names), OTHERS)
