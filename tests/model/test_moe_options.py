"""Groups of experts, biases, latent experts, gates on the input, drops by score, hashed first layers: against loops."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.evaluation.leaks import ZERO, certify
from moelab.model import DISPATCHES, LanguageModel, MoELayer, build_model, dispatch, leak_free, leaks
from moelab.model.generate import generate
from moelab.model.hash_router import pseudo_random
from moelab.model.router import Routing, limit_to_groups, within_capacity
from moelab.model.routing_record import record_routing

D, E, K = 16, 8, 2
SIGMOID = {"score": "sigmoid", "bias_update": 0.1, "balance_loss": 0}
GROUPS = {"n_group": 4, "topk_group": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "groups by their best (DeepSeek-V2)": {**GROUPS, "normalize_gates": False, "routed_scaling": 1.5},
    "groups by their two best (DeepSeek-V3)": {**GROUPS, **SIGMOID, "routed_scaling": 2.5},
    "groups by their best, sigmoid": {**GROUPS, **SIGMOID, "group_score": "max"},
    "groups of one expert": {**SIGMOID, "n_group": 8, "topk_group": 3},
    "all groups": {**SIGMOID, "n_group": 2, "topk_group": 2},
    "router bias": {"router_bias": True},
    "expert bias": {"expert_bias": True},
    "gpt-oss": {"router_bias": True, "expert_bias": True},
    "latent": {"d_latent": 8},
    "latent, shared, biases": {"d_latent": 8, "n_shared_experts": 1, "d_shared": 24, "expert_bias": True},
    "input gates (Llama 4)": {"input_gates": True, "score": "sigmoid", "normalize_gates": False, "top_k": 1},
    "input gates of two, biases": {"input_gates": True, "score": "sigmoid", "expert_bias": True},
    "drops by score": {"capacity_factor": 0.6, "capacity_drop": "score"},
    "drops in the order of tokens": {"capacity_factor": 0.6, "capacity_drop": "order"},
    "input gates, biases, drops": {
        "input_gates": True, "expert_bias": True, "capacity_factor": 0.6, "capacity_drop": "score",
    },
    "all": {**GROUPS, **SIGMOID, "router_bias": True, "expert_bias": True, "d_latent": 8, "capacity_factor": 0.7},
}  # fmt: skip


def config(n_layers: int = 1, activation: str = "swiglu", **moe: Any) -> ModelConfig:
    sizes = {"n_experts": E, "top_k": K, "d_expert": 8, **moe}
    shape = {"vocab_size": 32, "d_model": D, "n_layers": n_layers, "n_heads": 2, "activation": activation}
    return ModelConfig.parse({**shape, "moe": sizes})


def model(found: ModelConfig, dispatch: str = "loop") -> LanguageModel:
    """Weights from a seed, biases of every kind random."""
    built, generator = build_model(found, seed=3, dispatch=dispatch), torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, tensor in (*built.named_parameters(), *built.named_buffers()):
            if name.endswith("bias"):
                tensor.normal_(0, 0.2, generator=generator)
    return built


def layer(dispatch: str = "loop", activation: str = "swiglu", **moe: Any) -> MoELayer:
    found = model(config(activation=activation, **moe), dispatch).model.layers[0].mlp
    assert isinstance(found, MoELayer)
    return found


def tokens() -> Tensor:
    return torch.randn(4, 6, D, generator=torch.Generator().manual_seed(5))


def one_expert(moe: MoELayer, e: int, x: Tensor) -> Tensor:
    biases = moe.experts.biases
    h = moe.experts.first[e] @ x + (0 if biases is None else biases[0][e])
    half = h.shape[0] // 2
    h = F.silu(h[:half]) * h[half:] if moe.activation == "swiglu" else F.relu(h)
    return moe.experts.down_proj[e] @ h + (0 if biases is None else biases[1][e])


def chosen_gates(moe: MoELayer, x: Tensor) -> list[tuple[int, Tensor]]:
    """One token's experts and gates, by the definitions."""
    c, logits = moe.config, moe.router.weight @ x
    if c.router_bias:
        logits = logits + moe.router.bias
    scores = logits.exp() / logits.exp().sum() if c.score == "softmax" else 1 / (1 + (-logits).exp())
    by = [float(s) for s in (scores + moe.router.balance_bias if c.bias_update else scores).detach()]
    allowed = list(range(E))
    if c.n_group:
        size = E // c.n_group
        groups = [sorted(by[g * size : (g + 1) * size], reverse=True) for g in range(c.n_group)]
        both = c.group_score == "top2" or (c.group_score is None and bool(c.bias_update or c.router_bias))
        values = [sum(group[: 2 if both else 1]) for group in groups]
        best = sorted(range(c.n_group), key=lambda g: -values[g])[: c.topk_group]
        allowed = [e for e in allowed if e // size in best]
    taken = sorted(allowed, key=lambda e: -by[e])[: c.top_k]
    whole = sum(scores[e] for e in taken) if c.normalize_gates else 1
    return [(e, c.routed_scaling * scores[e] / whole) for e in taken]


def kept_choices(moe: MoELayer, choices: list[list[tuple[int, Tensor]]]) -> set[tuple[int, int]]:
    """The (token, expert) pairs that find room."""
    c = moe.config
    room = math.ceil(c.capacity_factor * len(choices) * c.top_k / E) if c.capacity_factor else len(choices)
    kept = set()
    for e in range(E):
        rows = [(t, float(gate.detach())) for t, pairs in enumerate(choices) for own, gate in pairs if own == e]
        if c.capacity_drop == "score":
            rows.sort(key=lambda row: -row[1])
        kept |= {(t, e) for t, _ in rows[:room]}
    return kept


def reference(moe: MoELayer, x_BTD: Tensor) -> Tensor:
    """A MoE layer one token and one choice at a time."""
    c, rows = moe.config, x_BTD.flatten(0, 1)
    choices = [chosen_gates(moe, x) for x in rows]
    kept, out = kept_choices(moe, choices), []
    for t, x in enumerate(rows):
        inner = moe.to_latent.weight @ x if c.d_latent else x
        y = torch.zeros(c.d_latent or D)
        for e, gate in choices[t]:
            if (t, e) in kept:
                y = y + (one_expert(moe, e, gate * inner) if c.input_gates else gate * one_expert(moe, e, inner))
        y = moe.from_latent.weight @ y if c.d_latent else y
        out.append(y + moe.shared_experts(x[None])[0] if c.n_shared_experts else y)
    return torch.stack(out).view_as(x_BTD)


def assert_equal(moe: MoELayer, function: Any, other: Any) -> None:
    """Same output, and same gradients of input and every parameter."""
    results = []
    for each in (function, other):
        x = tokens().requires_grad_()
        y = each(x)
        weight = torch.linspace(-1, 2, y.numel()).sin().view_as(y)
        results.append(
            [y.detach(), *torch.autograd.grad((y * weight).sum(), [x, *moe.parameters()], allow_unused=True)]
        )
    for a, b in zip(*results, strict=True):
        if b is None or a is None:
            assert all(each is None or not each.any() for each in (a, b))
        else:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_equals_the_loop(name: str) -> None:
    moe = layer(**OPTIONS[name])
    assert_equal(moe, lambda x: moe(x)[0], lambda x: reference(moe, x))


@pytest.mark.parametrize("activation", ["swiglu", "relu"])
@pytest.mark.parametrize("dispatch", DISPATCHES)
def test_every_dispatch_agrees(dispatch: str, activation: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gpt-oss", "input gates, biases, drops", "all"):
        moe, loop = layer(dispatch, activation, **OPTIONS[name]), layer("loop", activation, **OPTIONS[name])
        loop.load_state_dict(moe.state_dict())
        x = tokens()
        assert_equal(moe, lambda x, moe=moe: moe(x)[0], lambda x, moe=moe: reference(moe, x))
        torch.testing.assert_close(moe(x)[0], loop(x)[0], rtol=1e-5, atol=1e-5)
    capsys.readouterr()


def test_a_dispatch_without_biases_falls_back_and_reports_it_once(capsys: pytest.CaptureFixture[str]) -> None:
    dispatch._note_fallback.cache_clear()
    moe = layer("native", expert_bias=True)
    moe(tokens())
    moe(tokens())
    assert capsys.readouterr().err.count("dispatch native: the compiled kernel has plain SwiGLU experts") == 1
    assert build_model(config(expert_bias=True)).model.layers[0].mlp.dispatch != "native"


@torch.no_grad()
def test_biases_move_all_experts_of_group_routers() -> None:
    for router in ({"router": "expert_choice"}, {"router": "soft", "group_size": 4}):
        moe = layer(**router, expert_bias=True)
        before = moe(tokens())[0]
        moe.experts.down_proj_bias += 0.5
        gates = moe(tokens())[0] - before
        torch.testing.assert_close(gates, gates[..., :1].expand_as(gates), rtol=1e-4, atol=1e-5)
        assert gates.min() >= 0
        assert gates.max() > 0.01


@torch.no_grad()
def test_latent_experts_of_group_routers_are_those_between_two_projections() -> None:
    for router in ({"router": "expert_choice"}, {"router": "soft", "group_size": 4}):
        moe, x = layer(**router, d_latent=8), tokens()
        inner = moe.router(x, moe.experts, "swiglu", latent_BTL=moe.to_latent(x))[0]
        assert inner.shape == (4, 6, 8)
        torch.testing.assert_close(moe(x)[0], moe.from_latent(inner))
        moe.experts.down_proj.zero_()
        assert not moe(x)[0].any()


def test_groups_keep_what_they_promise() -> None:
    scores = torch.rand(50, 12, generator=torch.Generator().manual_seed(1))
    limited, edge = limit_to_groups(scores, 4, 2, "top2")
    open_groups = limited.isfinite().unflatten(1, (4, 3)).any(-1)
    assert (open_groups.sum(-1) == 2).all()
    assert torch.equal(limited[limited.isfinite()], scores[limited.isfinite()])
    assert edge is not None
    assert (edge[:, 0] >= edge[:, 1]).all()
    assert limit_to_groups(scores, 4, 4, "max")[1] is None


def test_a_tie_between_groups_is_a_near_tie() -> None:
    scores = torch.tensor([[0.4, 0.1, 0.39995, 0.10005]])
    chosen = torch.tensor([[0, 1]])
    limited, edge = limit_to_groups(scores, 2, 1, "max")
    routing = Routing(logits=scores, scores=scores, chosen=chosen, gates=scores[:, :2], choosing=limited)
    assert record_routing(routing).near_ties == 0
    tied = Routing(logits=scores, scores=scores, chosen=chosen, gates=scores[:, :2], choosing=limited, group_edge=edge)
    assert record_routing(tied).near_ties == 1


def test_dropping_by_score_keeps_the_largest_gates() -> None:
    generator = torch.Generator().manual_seed(1)
    chosen, gates = torch.randint(0, 4, (30, 1), generator=generator), torch.rand(30, 1, generator=generator)
    mask = torch.arange(30) % 5 != 0
    kept = within_capacity(chosen, 4, 0.75, mask, gates)
    for e in range(4):
        rows = [t for t in range(30) if int(chosen[t]) == e and mask[t]]
        best = sorted(rows, key=lambda t: -float(gates[t]))[:5]  # ceil(0.75 x 24 / 4)
        assert {t for t in rows if kept[t]} == set(best)


@torch.no_grad()
def test_the_first_layers_are_hashed() -> None:
    found = ModelConfig.parse({**config(4, hash_layers=1).to_dict(), "n_dense_layers": 1, "d_ff": 16, "moe_every": 1})
    built = build_model(found, seed=0)
    names = [name for name, _ in built.named_parameters() if ".router." in name]
    assert names == [f"model.layers.{index}.mlp.router.weight" for index in (2, 3)]
    ids = torch.tensor([[3, 7, 3, 7]])
    seen: list[Tensor] = []
    handle = built.model.layers[1].mlp.router.register_forward_hook(lambda *call: seen.append(call[2].chosen))
    records = built.loss(ids, ids, collect_routing=True).routing
    handle.remove()
    expected = pseudo_random(ids.flatten()[:, None], torch.arange(E)).topk(K).indices
    assert torch.equal(seen[0], expected)
    assert len(records) == 3
    assert records[0].near_ties == 0
    with leak_free(built):
        uncached = generate(built, [[1, 2, 3]], max_new_tokens=6, temperature=0, use_cache=False)
    assert generate(built, [[1, 2, 3]], max_new_tokens=6, temperature=0) == uncached


def test_hashed_layers_learn_and_stay_out_of_the_balance_loss() -> None:
    built = build_model(config(2, hash_layers=1), seed=0)
    ids = torch.randint(0, 32, (4, 6), generator=torch.Generator().manual_seed(0))
    output = built.loss(ids, ids)
    output.total.backward()
    assert all(parameter.grad is not None for parameter in built.parameters())
    assert built.balance_counts(ids).shape == (1, E)
    assert output.auxiliary["balance"].item() == pytest.approx(0.01, abs=0.004)


@pytest.mark.parametrize("name", [*OPTIONS, "hashed"])
def test_leak_certificate(name: str) -> None:
    own = config(2, **({"hash_layers": 1} if name == "hashed" else OPTIONS[name]))
    found = certify(own, batch=4, seq_len=6, trials=4)
    assert found.leak_free_change < ZERO
    assert found.clean != leaks(own)
    assert leaks(own) == (own.moe is not None and own.moe.capacity_factor is not None)
    if name == "hashed":
        assert set(found.kinds) == {"attention", "MoE, hash", "MoE, token_choice"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "loop" else name for name in DISPATCHES]
)
def test_a_thousand_experts_of_which_32(name: str) -> None:
    moe = layer(name, n_experts=1024, top_k=32, d_expert=8, **SIGMOID, n_group=8, topk_group=4)
    loop = layer("loop", n_experts=1024, top_k=32, d_expert=8, **SIGMOID, n_group=8, topk_group=4)
    assert_equal(moe, lambda x: moe(x)[0], lambda x: _sum_of_chosen(moe, x))
    y, output = moe(tokens(), record=True)
    torch.testing.assert_close(y, loop(tokens())[0], rtol=1e-5, atol=1e-5)
    assert output.record is not None
    assert output.record.load.shape == (1024,)
    assert output.record.load.sum().item() == pytest.approx(1)


def _sum_of_chosen(moe: MoELayer, x: Tensor) -> Tensor:
    """The 32 chosen experts of every token, all at once from gathered matrices."""
    rows = x.flatten(0, 1)
    routing = moe.router(rows)
    h = torch.einsum("tkfd,td->tkf", moe.experts.first[routing.chosen], rows)
    gate, up = h.chunk(2, -1)
    y = torch.einsum("tkdf,tkf,tk->td", moe.experts.down_proj[routing.chosen], F.silu(gate) * up, routing.gates)
    return y.view_as(x)


def test_muon_leaves_biases_to_adamw() -> None:
    from moelab.training.optimizer import is_hidden_matrix

    taken = {name for name, p in build_model(config(**OPTIONS["all"])).named_parameters() if is_hidden_matrix(name, p)}
    assert {name.rsplit("mlp.", 1)[1] for name in taken if "mlp" in name} == {
        "experts.gate_up_proj", "experts.down_proj", "to_latent.weight", "from_latent.weight",
    }  # fmt: skip


def test_hash_layers_leave_a_learned_one() -> None:
    with pytest.raises(InputError, match=r"moe.hash_layers: must be fewer than the MoE layers \(2\), got 2"):
        config(2, hash_layers=2)


@pytest.mark.parametrize("dispatch", ["loop", "sorted", "native"])
def test_gradients_add_up_in_one_order(dispatch: str) -> None:
    """Router and experts share one view of the input, then shared experts join: runs keep their bits."""
    moe = layer(dispatch, n_shared_experts=1, d_shared=8)
    results = []
    for function in (lambda x: moe(x)[0], lambda x: _by_parts(moe, x)):
        x = tokens().requires_grad_()
        y = function(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, *moe.parameters()])))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def _by_parts(moe: MoELayer, x: Tensor) -> Tensor:
    rows = x.flatten(0, 1)
    routing = moe.router(rows)
    y = DISPATCHES[moe.dispatch](
        rows, moe.experts.first, moe.experts.down_proj, routing.chosen, routing.gates, "swiglu"
    )
    return y.view_as(x) + moe.shared_experts(x)
