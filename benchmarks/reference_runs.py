"""The runs that the reference study may hold: sizes, experts, epochs and tokens, with the law's variables."""

from typing import Any

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.laws import get_law

LAW = get_law("moelab2026")
SIZES = {
    "d24": (24, 2, 2, 72), "d32": (32, 2, 2, 96), "d40": (40, 3, 5, 120), "d48": (48, 4, 4, 144),
    "d64": (64, 4, 4, 192), "d80": (80, 4, 5, 240), "d96": (96, 4, 6, 288), "d112": (112, 4, 7, 336),
}  # fmt: skip
"""Width, layers, heads and feed-forward width of each size: 27 to 750 thousand active parameters."""
TOKENS_PER_PARAM = (5, 10, 20, 40, 100)
EXPERTS, GRANULARITY, EPOCHS = (2, 4, 8, 16, 32, 64), (1, 2, 4, 8), (1, 2, 4, 8)
VOCABULARY, SEQ_LEN, BATCH = 512, 128, 1024
UNIQUE = 18_000_000
"""Unique training tokens of the default text at vocabulary 512, with some room."""
Candidate = dict[str, Any]


def model_of(size: str, experts: int = 1, fine: int = 1, shared: bool = False, router: str = "") -> dict[str, Any]:
    """The fields of one model: `experts` times the feed-forward's width, in experts of 1/`fine` of it."""
    width, layers, heads, hidden = SIZES[size]
    model: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "d_model": width,
        "n_layers": layers,
        "n_heads": heads,
        "d_ff": hidden,
    }
    if router == "mixture_of_tokens":
        model["moe"] = {"n_experts": experts, "top_k": 1, "d_expert": hidden, "router": router, "group_size": experts}
        model["moe"] |= {"balance_loss": 0.0, "z_loss": 0.0, "normalize_gates": False}
    elif experts > 1:
        narrow = hidden // fine
        moe: dict[str, Any] = {"n_experts": experts * fine - shared, "top_k": fine - shared, "d_expert": narrow}
        if shared:
            moe |= {"n_shared_experts": 1, "d_shared": narrow}
        if router:
            moe |= {"router": router, "balance_loss": 0.0, "z_loss": 0.0, "normalize_gates": False}
        model["moe"] = moe
    return model


def candidate(size: str, ratio: float, epochs: int, **options: Any) -> Candidate:
    """One run: its model, tokens and unique tokens, with the law's variables."""
    model = model_of(size, **options)
    config = ModelConfig.parse(model)
    count = count_parameters(config)
    tokens = int(ratio * count.params_active) // BATCH * BATCH
    conversion = LAW.variables_of(config, float(tokens), SEQ_LEN, tokens / epochs, published=False)
    return {
        "size": size,
        "model": model,
        "active": int(count.params_active),
        "total": int(count.params_total),
        "tokens": tokens,
        "unique": tokens // epochs,
        "epochs": epochs,
        "ratio": ratio,
        "flops": float(count_flops(config, SEQ_LEN).train),
        "variables": {name: float(value) for name, value in conversion.variables.items()},
        **options,
    }


def candidates() -> list[Candidate]:
    """Every run that may be chosen: within the tokens per parameter of its size, its text and its time."""
    found = []
    for size, (width, *_) in SIZES.items():
        kinds: list[dict[str, Any]] = [{}]
        for experts in EXPERTS:
            for fine in GRANULARITY:
                if fine == 8 and width < 64:  # experts of fewer than 24 columns
                    continue
                kinds.append({"experts": experts, "fine": fine})
                if fine > 1:
                    kinds.append({"experts": experts, "fine": fine, "shared": True})
        for kind in kinds:
            for ratio in TOKENS_PER_PARAM:
                for epochs in EPOCHS:
                    run = candidate(size, ratio, epochs, **kind)
                    most = 100 if run["active"] <= 110_000 else 40 if run["active"] <= 250_000 else 10
                    if ratio <= most and run["unique"] <= UNIQUE and run["tokens"] >= 100_000:
                        found.append(run)
    return found


def others() -> list[Candidate]:
    """Routers that the law does not know: hash routing and Mixture of Tokens, beside token choice of the same shape."""
    found = []
    for size, ratio in (("d24", 40), ("d40", 20), ("d64", 10)):
        for experts in (4, 8):
            found.append(candidate(size, ratio, 1, experts=experts, router="hash"))
            found.append(candidate(size, ratio, 1, experts=experts, router="mixture_of_tokens"))
    return found
