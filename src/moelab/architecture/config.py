"""What a model is: validated, frozen, written as YAML. Everything else (counts, torch modules, exports) is derived."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from moelab.config import Config, Count, CountOrZero, NonNegative, Positive
from moelab.errors import InputError
from moelab.quantities import parse_count

Activation = Literal["swiglu", "relu", "gelu"]
"""`swiglu` has three matrices (gate, up, down); the plain ones have two (up, down)."""


Router = Literal["token_choice", "expert_choice", "hash", "word", "random", "soft", "mixture_of_tokens"]
"""Which side chooses. `hash` routes by the token's id, `word` by the word it belongs to (or, without `routing_vocab`,
by it and the token before), `random` by id and position (a control); they learn nothing. Soft MoE (arXiv 2308.00951)
and Mixture of Tokens (2310.15961) mix tokens."""
MIXING = ("soft", "mixture_of_tokens")
UNLEARNED = ("hash", "word", "random")


def _whole(value: Any) -> int | None:
    """A positive whole number written as a count may be; None for anything else, which its own field refuses."""
    try:
        number = parse_count(value) if isinstance(value, int | float | str) else 0
    except InputError:
        return None
    return number if number > 0 else None


class MLAConfig(Config):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): counted here, not trainable by moelab."""

    q_lora_rank: Count
    kv_lora_rank: Count
    qk_nope_head_dim: Count
    qk_rope_head_dim: Count
    v_head_dim: Count


class MoEConfig(Config):
    """The feed-forward of a MoE layer: `n_experts` routed experts of width `d_expert`, `top_k` of them per token.

    `d_shared` is the total width of the `n_shared_experts` that every token uses. `normalize_gates` divides the
    chosen gates by their sum; with `top_k` 1 that would cut the router off from the loss, so it is refused.
    `normalize_scores` divides sigmoid scores by their sum over all experts instead, before the choice.
    `balance_loss` is per layer and 1 at perfect balance; `z_loss` is the router's (arXiv 2202.08906).

    Options that are None are off and are left out of YAML and of hashes. `capacity_factor` drops the choices beyond
    factor x tokens x K/E of an expert; `bias_update` is the step of loss-free balancing (arXiv 2408.15664);
    `output_norm` puts a LayerNorm on the output (arXiv 2402.07871); `shared_gate` weighs the shared experts by a
    sigmoid of the token. Routers that see several tokens work in groups of `group_size`: `batch` groups the tokens
    at one position of several sequences, `sequence` neighbours in one; an expert takes group_size K/E of a group's
    tokens (or mixtures). Mixture of Tokens makes one mixture per expert and group: n_experts = top_k x group_size.
    `routing_vocab` gives that many of the commonest words (`word`, arXiv 2311.10768) or tokens (`hash`) their experts
    from a table that evens the load over the training text; the rest are hashed.
    """

    n_experts: Count
    top_k: Count
    d_expert: Count
    n_shared_experts: CountOrZero = 0
    d_shared: CountOrZero = 0
    router: Router = "token_choice"
    score: Literal["softmax", "sigmoid"] = "softmax"
    normalize_gates: bool = True
    routed_scaling: Positive = 1.0
    balance_loss: NonNegative = 0.01
    z_loss: NonNegative = 0.001
    d_ff_reference: Count | None = Field(default=None, description="dense FFN width that the layer replaces")
    router_bias: bool = False
    expert_bias: bool = False
    capacity_factor: Positive | None = None
    bias_update: Positive | None = None
    output_norm: bool | None = None
    shared_gate: bool | None = None
    grouping: Literal["batch", "sequence"] | None = None
    group_size: Count | None = None
    temperature: Positive | None = Field(default=None, ge=1e-6)
    learned_temperature: bool | None = None
    separate_emit: bool | None = None
    mixing: Literal["soft", "hard", "uniform"] | None = None
    normalize_scores: bool | None = None
    routing_vocab: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("normalize_gates") is None:
            before = data.get("normalize_scores")
            data = {**data, "normalize_gates": data.get("top_k") not in (1, "1", 1.0) and not before}
        if isinstance(data, dict) and data.get("n_shared_experts") and not data.get("d_shared"):
            raise ValueError("d_shared: n_shared_experts needs d_shared, their total width")
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_k > self.n_experts:
            raise ValueError(f"top_k: must be at most n_experts ({self.n_experts}), got {self.top_k}")
        if self.top_k == 1 and self.normalize_gates:
            raise ValueError("normalize_gates: must be false when top_k is 1 (the router would get no gradient)")
        if self.d_shared and not self.n_shared_experts:
            raise ValueError("n_shared_experts: d_shared needs at least one shared expert")
        if self.n_shared_experts and self.d_shared % self.n_shared_experts:
            raise ValueError(f"d_shared: must be a multiple of n_shared_experts ({self.n_shared_experts})")
        if self.shared_gate and not self.n_shared_experts:
            raise ValueError("shared_gate: needs n_shared_experts")
        if self.normalize_scores and (self.score == "softmax" or self.normalize_gates):
            raise ValueError("normalize_scores: needs score sigmoid and normalize_gates false (it stands in its place)")
        self._check_router()
        return self

    def _check_router(self) -> None:
        """Refuse options that this router does not have."""
        grouped = self.router in ("expert_choice", *MIXING)
        mixture = self.router == "mixture_of_tokens"
        owners = {
            "capacity_factor": self.router == "token_choice",
            "bias_update": self.router == "token_choice",
            "grouping": self.router in ("expert_choice", "soft"),
            "group_size": grouped,
            "normalize_scores": self.router == "token_choice",
            "routing_vocab": self.router in ("hash", "word"),
            **dict.fromkeys(("temperature", "learned_temperature", "separate_emit", "mixing"), mixture),
        }
        for name, allowed in owners.items():
            if getattr(self, name) is not None and not allowed:
                raise ValueError(f"{name}: the router {self.router} has no such option")
        if self.router in MIXING and self.group_size is None:
            raise ValueError(f"group_size: the router {self.router} needs it")
        if mixture and self.n_experts != self.top_k * (self.group_size or 0):
            raise ValueError(
                f"n_experts: must be top_k x group_size ({self.top_k * (self.group_size or 0)}), got {self.n_experts}"
            )
        if self.router in ("soft", "expert_choice") and (self.group_size or 0) * self.top_k % self.n_experts:
            raise ValueError("group_size: group_size x top_k must be a multiple of n_experts (whole slots per expert)")
        self._check_ignored()
        if self.mixing == "uniform" and (self.temperature or self.learned_temperature or self.separate_emit):
            raise ValueError("mixing: uniform mixing has no temperature and no emit weights")

    def _check_ignored(self) -> None:
        """Refuse values that this router would ignore; defaults and zeros stand for 'not set'.

        A mixture may turn to token choice, whose losses then count.
        """
        if self.router == "token_choice":
            return
        if self.score != "softmax":
            raise ValueError(f"score: the router {self.router} has no such option")
        if self.router == "mixture_of_tokens":
            return
        for name in ("balance_loss", "z_loss"):
            if getattr(self, name) not in (0.0, type(self).model_fields[name].default):
                raise ValueError(f"{name}: the router {self.router} has no such loss")

    @classmethod
    def mixture_of_tokens(cls, *, d_ff: int, group_size: int, mixtures: int = 1, **options: Any) -> Self:
        """MoT sized to the FLOPs of a dense FFN of width `d_ff` (arXiv 2310.15961): X = group_size, Y = mixtures.

        X Y experts of width d_ff / Y, each with one mixture per group. Raises InputError where Y does not divide d_ff.
        """
        if d_ff % mixtures:
            raise InputError(f"mixtures: must divide d_ff ({d_ff}), got {mixtures}")
        sizes = {"n_experts": group_size * mixtures, "top_k": mixtures, "d_expert": d_ff // mixtures}
        return cls.parse({**sizes, "router": "mixture_of_tokens", "group_size": group_size, **options})

    @property
    def slots(self) -> int:
        """Mixtures per expert and group (soft MoE and Mixture of Tokens)."""
        return (self.group_size or 0) * self.top_k // self.n_experts

    @property
    def reference_width(self) -> int:
        """Width of the dense FFN with the same active size, unless `d_ff_reference` says otherwise."""
        return self.d_ff_reference or self.top_k * self.d_expert + self.d_shared

    @property
    def granularity(self) -> float:
        """G = d_ff / d_expert (Krajewski et al., arXiv 2402.07871)."""
        return self.reference_width / self.d_expert

    @property
    def expansion(self) -> float:
        """X = n_experts d_expert / d_ff: how many times the FFN's parameters were multiplied."""
        return self.n_experts * self.d_expert / self.reference_width

    @property
    def sparsity(self) -> float:
        """S = 1 - K/E (Abnar et al., arXiv 2501.12370)."""
        return 1 - self.top_k / self.n_experts


class ModelConfig(Config):
    """A decoder-only language model: pre-norm RMSNorm, RoPE, grouped-query attention, dense or MoE feed-forward.

    With `moe`, the first `n_dense_layers` layers stay dense (width `d_ff`), and of the rest every `moe_every`-th
    is MoE. `n_kv_heads` defaults to `n_heads`, `head_dim` to `d_model / n_heads`.
    """

    vocab_size: Count = Field(le=2**31)
    d_model: Count = Field(le=2**24)
    n_layers: Count = Field(le=2**16)
    n_heads: Count = Field(le=2**20)
    n_kv_heads: Count
    head_dim: Count
    d_ff: CountOrZero = Field(default=0, le=2**28)
    n_dense_layers: CountOrZero = 0
    moe_every: Count = 1
    moe: MoEConfig | None = None
    activation: Activation = "swiglu"
    qk_norm: Literal["none", "head", "full"] = "head"
    tie_embeddings: bool = True
    rope_theta: Positive = 10_000.0
    norm_eps: Positive = 1e-6
    attention_bias: bool = False
    attention_sinks: bool = False
    mla: MLAConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {**data}
        if isinstance(data.get("qk_norm"), bool):
            data["qk_norm"] = "head" if data["qk_norm"] else "none"
        heads, width = _whole(data.get("n_heads")), _whole(data.get("d_model"))
        # Where n_heads or d_model is missing or wrong, it is refused by its own name: what follows from it is not.
        if data.get("n_kv_heads") is None:
            data["n_kv_heads"] = heads or 1
        if data.get("head_dim") is None:
            if heads and width and width % heads:
                raise ValueError(
                    f"d_model: must be a multiple of n_heads ({heads}) unless head_dim is given, got {width}"
                )
            data["head_dim"] = width // heads if heads and width else 2
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads: must divide n_heads ({self.n_heads}), got {self.n_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim: must be even for rotary embeddings, got {self.head_dim}")
        if self.moe is None and (self.n_dense_layers or self.moe_every != 1):
            raise ValueError("n_dense_layers, moe_every: only a model with `moe` has them")
        if self.moe is not None and self.n_moe_layers == 0:
            name = "n_dense_layers" if self.n_dense_layers >= self.n_layers else "moe_every"
            raise ValueError(f"{name}: leaves none of the {self.n_layers} layers for MoE, got {getattr(self, name)}")
        if self.d_ff == 0 and self.n_moe_layers < self.n_layers:
            raise ValueError("d_ff: is required because some layers are dense")
        return self

    def is_moe_layer(self, layer: int) -> bool:
        """Whether layer number `layer` (from 0) has a MoE feed-forward."""
        if self.moe is None or layer < self.n_dense_layers:
            return False
        return (layer - self.n_dense_layers) % self.moe_every == self.moe_every - 1

    @property
    def n_moe_layers(self) -> int:
        """How many layers are MoE."""
        return sum(self.is_moe_layer(layer) for layer in range(self.n_layers))

    @property
    def unbuildable(self) -> str | None:
        """Why moelab can count but not build this model, or None where it can."""
        reasons = {
            "multi-head latent attention": self.mla is not None,
            "attention sinks": self.attention_sinks,
            "biased experts": self.moe is not None and self.moe.expert_bias,
            "a router bias": self.moe is not None and self.moe.router_bias,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)
