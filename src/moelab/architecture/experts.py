"""The feed-forward of a MoE layer as a validated config: its experts, who chooses them, and what each choice allows."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from moelab.architecture.routers import OPTIONS, ROUTERS, Router, RouterTraits
from moelab.architecture.routing_choice import routing_fields
from moelab.config import Config, Count, CountOrZero, NonNegative, Positive
from moelab.errors import InputError


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

    `d_latent` projects the layer's input down to that width before the routed experts and their sum back up.
    `n_group` splits the experts into groups, of which each token uses the best `topk_group`, by the largest score
    (`group_score: max`, DeepSeek-V2) or the sum of the two largest (`top2`, DeepSeek-V3; the default with
    `bias_update` or `router_bias`). The first `hash_layers` MoE layers choose by a hash of the token's id.
    `routing: loss_free` is read as the fields that it stands for (`routing_choice`); those given beside it hold.
    `capacity_drop: score` drops an expert's lowest gates instead of its last tokens. `input_gates` multiplies the
    experts' input instead of their output (Llama 4). `score: sparsemixer` (arXiv 2409.12136) is counted only.
    """

    n_experts: Count
    top_k: Count
    d_expert: Count
    n_shared_experts: CountOrZero = 0
    d_shared: CountOrZero = 0
    router: Router = "token_choice"
    score: Literal["softmax", "sigmoid", "sparsemixer"] = "softmax"
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
    d_latent: Count | None = None
    n_group: Count | None = None
    topk_group: Count | None = None
    group_score: Literal["max", "top2"] | None = None
    hash_layers: Count | None = None
    capacity_drop: Literal["order", "score"] | None = None
    input_gates: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any) -> Any:
        if isinstance(data, dict) and "routing" in data:
            data = {**data}
            try:
                data = {**routing_fields(data.pop("routing")), **data}
            except InputError as error:
                raise ValueError(str(error)) from None
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
        self._check_groups()
        return self

    def _check_groups(self) -> None:
        """Refuse groups of experts that do not divide them or cannot hold top_k."""
        if self.capacity_drop and self.capacity_factor is None:
            raise ValueError("capacity_drop: needs capacity_factor")
        if self.n_group is None:
            for name in ("topk_group", "group_score"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name}: needs n_group")
            return
        if self.topk_group is None:
            raise ValueError("topk_group: n_group needs it, the groups that a token may use")
        if self.n_experts % self.n_group:
            raise ValueError(f"n_group: must divide n_experts ({self.n_experts}), got {self.n_group}")
        if self.topk_group > self.n_group:
            raise ValueError(f"topk_group: must be at most n_group ({self.n_group}), got {self.topk_group}")
        room = self.topk_group * (self.n_experts // self.n_group)
        if self.top_k > room:
            raise ValueError(f"top_k: must be at most {room}, the experts of topk_group groups, got {self.top_k}")

    def _check_router(self) -> None:
        """Refuse options that this router does not have."""
        mixture = self.router == "mixture_of_tokens"
        for name in OPTIONS:
            if getattr(self, name) is not None and name not in self.traits.options:
                raise ValueError(f"{name}: the router {self.router} has no such option")
        if self.traits.mixes and self.group_size is None:
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
        if self.traits.learned and self.top_k > 1 and not self.normalize_gates:
            raise ValueError(f"normalize_gates: the router {self.router} normalises no gates; leave it out")
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
    def traits(self) -> RouterTraits:
        """What the router sees, learns and adds."""
        return ROUTERS[self.router]

    @property
    def scores_groups_by(self) -> Literal["max", "top2"]:
        """How groups of experts are scored: `group_score`, or its default."""
        return self.group_score or ("top2" if self.bias_update or self.router_bias else "max")

    @property
    def hashed(self) -> Self:
        """The same experts chosen by a hash of the token's id, for the first `hash_layers` MoE layers."""
        sizes = {name: getattr(self, name) for name in ("n_experts", "top_k", "d_expert", "routed_scaling")}
        return type(self).parse({**sizes, "router": "hash", "normalize_gates": self.normalize_gates})

    @property
    def slots(self) -> int:
        """Mixtures per expert and group (soft MoE and Mixture of Tokens)."""
        return (self.group_size or 0) * self.top_k // self.n_experts

    @property
    def reference_width(self) -> int:
        """`d_ff_reference`, else the width of the dense FFN with the same active size."""
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
