"""Every router against a dumb reference, its identities, balancing, capacity, and what one token may see of another."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.model import LanguageModel, MoELayer, build_model, leak_free, leaks
from moelab.model.generate import generate
from moelab.model.hash_router import pseudo_random
from moelab.model.router import BalanceTerm, counts_by_marks, within_capacity

D = 16
ROUTERS: dict[str, dict[str, Any]] = {
    "token choice": {},
    "capacity": {"capacity_factor": 0.5},
    "bias": {"bias_update": 0.1, "balance_loss": 0},
    "hash": {"router": "hash"},
    "word": {"router": "word"},
    "random": {"router": "random"},
    "expert choice": {"router": "expert_choice"},
    "expert choice, sequence": {"router": "expert_choice", "grouping": "sequence", "group_size": 6},
    "soft": {"router": "soft", "grouping": "sequence", "group_size": 6},
    "mixture": {"router": "mixture_of_tokens", "group_size": 2},
    "mixture, learned": {
        "router": "mixture_of_tokens",
        "group_size": 2,
        "learned_temperature": True,
        "separate_emit": True,
    },
    "mixture, uniform": {"router": "mixture_of_tokens", "group_size": 2, "mixing": "uniform"},
}


def config(n_layers: int = 1, **moe: Any) -> ModelConfig:
    sizes = {"n_experts": 4, "top_k": 2, "d_expert": 8, **moe}
    return ModelConfig.parse({"vocab_size": 32, "d_model": D, "n_layers": n_layers, "n_heads": 2, "moe": sizes})


def layer(**moe: Any) -> MoELayer:
    found = build_model(config(**moe), seed=3).model.layers[0].mlp
    assert isinstance(found, MoELayer)
    return found


def tokens(batch: int = 4, length: int = 6) -> Tensor:
    return torch.randn(batch, length, D, generator=torch.Generator().manual_seed(5))


def one_expert(moe: MoELayer, expert: int, x: Tensor) -> Tensor:
    gate, up = (moe.experts.first[expert] @ x).chunk(2)
    return moe.experts.down_proj[expert] @ (F.silu(gate) * up)


def assert_matches(moe: MoELayer, reference) -> None:
    """Same output, and same gradients of input and every parameter."""
    results = []
    for function in (lambda x: moe(x)[0], lambda x: reference(moe, x)):
        x = tokens().requires_grad_()
        y = function(x)
        leaves = [x, *moe.parameters()]
        weight = torch.linspace(-1, 2, y.numel()).sin().view_as(y)
        gradients = torch.autograd.grad((y * weight).sum(), leaves, allow_unused=True)
        results.append([y.detach(), *gradients])
    for a, b in zip(*results, strict=True):
        if b is None:
            assert a is None or not a.any()
        else:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def expert_choice_reference(moe: MoELayer, x: Tensor) -> Tensor:
    batch, length, _ = x.shape
    scores = (x @ moe.router.weight.T).softmax(-1)
    y = [[torch.zeros(D) for _ in range(length)] for _ in range(batch)]
    by_position = moe.router.grouping == "batch"
    for group in range(length if by_position else batch):
        members = [(b, group) if by_position else (group, b) for b in range(batch if by_position else length)]
        for expert in range(4):
            best = sorted(members, key=lambda m: -float(scores[m][expert].detach()))[: len(members) * 2 // 4]
            for b, t in best:
                y[b][t] = y[b][t] + scores[b, t, expert] * one_expert(moe, expert, x[b, t])
    return torch.stack([torch.stack(row) for row in y])


@pytest.mark.parametrize("name", ["expert choice", "expert choice, sequence"])
def test_expert_choice(name: str) -> None:
    assert_matches(layer(**ROUTERS[name]), expert_choice_reference)


def soft_reference(moe: MoELayer, x: Tensor) -> Tensor:
    """Soft MoE's equations within each sequence of 6 tokens: 3 slots for each of 4 experts."""
    rows = []
    for sequence in x:
        logits = sequence @ moe.router.weight.T
        slots = logits.softmax(0).T @ sequence
        results = torch.stack([one_expert(moe, s // 3, slots[s]) for s in range(12)])
        rows.append(logits.softmax(1) @ results)
    return torch.stack(rows)


def test_soft_moe() -> None:
    assert_matches(layer(**ROUTERS["soft"]), soft_reference)


def mixture_reference(moe: MoELayer, x: Tensor) -> Tensor:
    options = moe.config
    y = torch.zeros_like(x)
    for t in range(x.shape[1]):
        for start in range(0, x.shape[0], 2):
            pair = x[start : start + 2, t]
            for expert in range(4):
                if options.mixing == "uniform":
                    read = emit = torch.full((2,), 0.5)
                else:
                    heat = (moe.router.theta - 1).exp() if options.learned_temperature else torch.ones(2)
                    source = moe.router.emit_weight if options.separate_emit else moe.router.weight
                    read = (pair @ moe.router.weight[expert] / heat[0]).softmax(0)
                    emit = (pair @ source[expert] / heat[1]).softmax(0)
                result = one_expert(moe, expert, read @ pair)
                delta = torch.zeros_like(x)
                delta[start : start + 2, t] = emit[:, None] * result
                y = y + delta
    return y


@pytest.mark.parametrize("name", ["mixture", "mixture, learned", "mixture, uniform"])
def test_mixture_of_tokens(name: str) -> None:
    moe = layer(**ROUTERS[name])
    if moe.config.learned_temperature:
        with torch.no_grad():
            moe.router.theta.copy_(torch.tensor([0.5, 1.5]))
    assert_matches(moe, mixture_reference)


def test_cold_mixture_is_the_hard_one() -> None:
    cold = layer(**ROUTERS["mixture"], temperature=1e-4)
    hard = layer(**ROUTERS["mixture"], mixing="hard")
    torch.testing.assert_close(cold(tokens())[0], hard(tokens())[0], rtol=1e-5, atol=1e-6)


def test_a_short_group_is_filled_up() -> None:
    moe = layer(router="mixture_of_tokens", group_size=4, n_experts=8)
    x = tokens(batch=3)
    alone = moe(x)[0]
    logits = x[:, 0] @ moe.router.weight.T
    weights = logits.softmax(0)
    mixes = weights.T @ x[:, 0]
    expected = weights @ torch.stack([one_expert(moe, e, mixes[e]) for e in range(8)])
    torch.testing.assert_close(alone[:, 0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["hash", "word", "random"])
def test_fixed_routers_choose_k_different_experts_evenly(name: str) -> None:
    model = build_model(config(**ROUTERS[name]), seed=0)
    ids = torch.randint(0, 32, (64, 100), generator=torch.Generator().manual_seed(0))
    record = model.loss(ids, ids, collect_routing=True).routing[0]
    assert record.load.sum().item() == pytest.approx(1)
    assert record.near_ties == 0
    assert record.max_violation < (0.6 if name == "hash" else 0.15)
    assert not list(model.model.layers[0].mlp.router.parameters())


def test_hash_numbers_are_uniform_and_fixed() -> None:
    numbers = pseudo_random(torch.arange(5000)[:, None], torch.arange(8))
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.01)
    assert numbers.std().item() == pytest.approx(12**-0.5, abs=0.01)
    assert torch.corrcoef(numbers.T).tril(-1).abs().max() < 0.06
    assert numbers[:2, 0].tolist() == pytest.approx([0.4974, 0.3649], abs=1e-4)


def test_capacity_against_a_loop() -> None:
    chosen = torch.randint(0, 4, (30, 2), generator=torch.Generator().manual_seed(1))
    kept, taken = within_capacity(chosen, 4, 0.75), [0] * 4
    for t in range(30):
        for k in range(2):
            expert = int(chosen[t, k])
            assert bool(kept[t, k]) == (taken[expert] < 12)  # ceil(.75 x 60 / 4)
            taken[expert] += 1


def test_a_capacity_is_not_rounded_up_by_floating_point() -> None:
    assert int(within_capacity(torch.zeros(100, 1, dtype=torch.int64), 10, 1.1).sum()) == 11


def test_near_ties_are_those_of_the_scores_that_chose() -> None:
    moe = layer(bias_update=0.1)
    plain = moe(tokens(), record=True)[1].record
    routing = moe.router(tokens().flatten(0, 1))
    with torch.no_grad():
        # the first expert is always taken: the edge lies between the best and the second best of the rest
        moe.router.balance_bias.copy_(torch.tensor([10.0, 0, 0, 0]))
    record = moe(tokens(), record=True)[1].record
    best = routing.scores[:, 1:].sort(-1, descending=True).values
    assert record.near_ties == pytest.approx(float((best[:, 0] - best[:, 1] < 1e-3).float().mean()))
    with torch.no_grad():
        moe.router.weight.zero_()
        moe.router.balance_bias.copy_(torch.tensor([0.3, 0.2, 0.1, 0.0]))
    assert moe(tokens(), record=True)[1].record.near_ties == 0
    assert plain is not None


@pytest.mark.parametrize("name", ["expert choice", "expert choice, sequence"])
def test_padding_takes_no_slot_from_real_tokens(name: str) -> None:
    moe, x = layer(**ROUTERS[name]), tokens()
    mask = torch.ones(4, 6, dtype=torch.bool)
    if name == "expert choice":
        mask[2:] = False
        alone, padded = moe(x[:2])[0], moe(x, mask)[0][:2]
    else:
        mask[:, 4:] = False
        alone, padded = layer(router="expert_choice", grouping="sequence")(x[:, :4])[0], moe(x, mask)[0][:, :4]
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-6)


def test_dropped_choices_add_nothing_and_are_counted() -> None:
    moe = layer(capacity_factor=0.5)
    y, output = moe(tokens(), record=True)
    assert output.record is not None
    assert 0.4 < output.record.drop_rate < 0.6
    with leak_free(moe):
        free = moe(tokens(), record=True)[1].record
    assert free is not None
    assert free.drop_rate == 0
    torch.testing.assert_close(layer(capacity_factor=100)(tokens())[0], layer()(tokens())[0])
    assert not torch.equal(y, layer()(tokens())[0])


def test_loss_free_balancing_evens_the_load_and_is_saved() -> None:
    model = build_model(config(bias_update=0.02, balance_loss=0, z_loss=0), seed=0)
    with torch.no_grad():
        model.model.layers[0].mlp.router.weight[0] *= 3
    ids = torch.randint(0, 32, (16, 32), generator=torch.Generator().manual_seed(0))
    before = model.loss(ids, ids, collect_routing=True).routing[0].max_violation
    model.update_routers()
    for _ in range(60):
        for half in ids.split(8):
            model.loss(half, half)
        model.update_routers()
    after = model.loss(ids, ids, collect_routing=True).routing[0].max_violation
    assert after < 0.5 * before
    name = "model.layers.0.mlp.router.balance_bias"
    state = model.state_dict()
    assert state[name].sum().item() == pytest.approx(0, abs=1e-5)
    other = build_model(model.config, seed=1)
    other.load_state_dict(state)
    assert torch.equal(other.state_dict()[name], state[name])
    with torch.no_grad():
        model.update_routers()
        model.loss(ids, ids)
    assert not model.model.layers[0].mlp.router.load.any()


def test_gated_shared_experts_and_output_norm() -> None:
    moe = layer(n_shared_experts=1, d_shared=8, shared_gate=True, output_norm=True)
    x = tokens()
    plain = F.layer_norm(layer()(x)[0], (D,), eps=1e-6)
    gate = (x @ moe.shared_router.weight.T).sigmoid()
    torch.testing.assert_close(moe(x)[0], plain + gate * moe.shared_experts(x), rtol=1e-5, atol=1e-5)


def perturbed(model: LanguageModel) -> tuple[float, float]:
    """Largest change of earlier logits in the same sequence, and of other sequences, when token (1, 3) changes."""
    ids = torch.randint(0, 32, (4, 6), generator=torch.Generator().manual_seed(2))
    changed = ids.clone()
    changed[1, 3] = (changed[1, 3] + 1) % 32
    difference = (model(ids) - model(changed)).abs().amax(-1)
    return float(difference[1, :3].max()), float(difference[[0, 2, 3]].max())


@pytest.mark.parametrize("name", ROUTERS)
def test_what_leaks_is_declared(name: str) -> None:
    model = build_model(config(2, **ROUTERS[name]), seed=0).double()
    with torch.no_grad():
        earlier, others = perturbed(model)
        with leak_free(model):
            assert max(perturbed(model)) < 1e-9
    assert leaks(model.config) == (max(earlier, others) > 1e-9)


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_trains_and_generates(name: str) -> None:
    model = build_model(config(2, **ROUTERS[name]), seed=0)
    ids = torch.randint(0, 32, (4, 7), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    losses = []
    for _ in range(10):
        output = model.loss(ids[:, :-1], ids[:, 1:], collect_routing=True)
        output.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.update_routers()
        losses.append(output.loss.item())
    assert losses[-1] < 0.7 * losses[0]
    with leak_free(model):
        uncached = generate(model, [[1, 2, 3]], max_new_tokens=6, temperature=0, use_cache=False)
    assert generate(model, [[1, 2, 3]], max_new_tokens=6, temperature=0) == uncached


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"router": "hash", "capacity_factor": 1}, "capacity_factor: the router hash has no such option"),
        ({"router": "soft"}, "group_size: the router soft needs it"),
        ({"router": "mixture_of_tokens", "group_size": 3}, r"n_experts: must be top_k x group_size \(6\)"),
        ({"shared_gate": True}, "shared_gate: needs n_shared_experts"),
        ({"group_size": 4}, "group_size: the router token_choice has no such option"),
        ({"router": "soft", "group_size": 5}, "group_size: group_size x top_k must be a multiple"),
        ({"normalize_scores": True}, "normalize_scores: needs score sigmoid and normalize_gates false"),
        ({"score": "sigmoid", "normalize_scores": True, "normalize_gates": True}, "normalize_scores: needs score"),
        ({"router": "hash", "normalize_scores": True, "score": "sigmoid"}, "the router hash has no such option"),
        ({"routing_vocab": 5}, "routing_vocab: the router token_choice has no such option"),
        ({"router": "word", "routing_vocab": 0}, "routing_vocab"),
        ({"router": "expert_choice", "group_size": 5}, "group_size: group_size x top_k must be a multiple"),
        ({"router": "expert_choice", "score": "sigmoid"}, "score: the router expert_choice has no such option"),
        ({"router": "expert_choice", "balance_loss": 1.0}, "balance_loss: the router expert_choice has no such loss"),
        (
            {"router": "expert_choice", "normalize_gates": False},
            "normalize_gates: the router expert_choice",
        ),
        (
            {"router": "soft", "group_size": 4, "normalize_gates": False},
            "normalize_gates: the router soft normal",
        ),
        ({"router": "hash", "score": "sigmoid"}, "score: the router hash has no such option"),
        ({"router": "hash", "z_loss": 0.5}, "z_loss: the router hash has no such loss"),
        ({"router": "mixture_of_tokens", "group_size": 2, "temperature": 1e-38}, "temperature: .* 0.000001"),
        ({"router": "best"}, "router: input should be 'token_choice'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config(**options)


@pytest.mark.parametrize("name", ROUTERS)
def test_options_survive_the_round_trip(name: str) -> None:
    for own in (config(**ROUTERS[name]), config(**{**ROUTERS[name], "balance_loss": 0, "z_loss": 0})):
        assert ModelConfig.parse(own.to_dict()) == own


def test_what_leaves_no_layer_is_named() -> None:
    sizes = {"vocab_size": 32, "d_model": D, "n_layers": 2, "n_heads": 2, "d_ff": 8}
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 8}
    with pytest.raises(InputError, match="moe_every: leaves none of the 2 layers for MoE, got 3"):
        ModelConfig.parse({**sizes, "moe_every": 3, "moe": moe})
    with pytest.raises(InputError, match="n_dense_layers: leaves none of the 2 layers for MoE, got 2"):
        ModelConfig.parse({**sizes, "n_dense_layers": 2, "moe": moe})


def test_old_configs_keep_their_content() -> None:
    assert set(config().to_dict()["moe"]) == {
        "n_experts", "top_k", "d_expert", "n_shared_experts", "d_shared", "router", "score", "normalize_gates",
        "routed_scaling", "balance_loss", "z_loss", "router_bias", "expert_bias",
    }  # fmt: skip


def test_counting_by_marks_is_counting() -> None:
    chosen = torch.rand(12, 6, generator=torch.Generator().manual_seed(0)).topk(2).indices
    mask = torch.arange(12) % 5 != 0
    for counted in (torch.ones_like(chosen), mask[:, None].expand_as(chosen).long()):
        expected = BalanceTerm.of(torch.rand(12, 6), chosen, counted[:, 0].bool(), sequences=3).counts
        assert torch.equal(counts_by_marks(chosen, counted, 6, 3), expected)
