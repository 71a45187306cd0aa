"""Token-by-token routers against a loop over tokens and choices: outputs and all gradients, in fp32 and in bf16."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.model import DISPATCHES, MoELayer, build_model
from moelab.model.hash_router import TokenContext

D, E, K = 16, 4, 2
BF16 = 3e-2
"""Allowed error of bf16 against fp32, relative to the largest value: five roundings of 2^-8 and a sum or two."""
TOKEN_CHOICE: dict[str, dict[str, Any]] = {
    "softmax": {},
    "softmax, not normalised": {"normalize_gates": False},
    "sigmoid": {"score": "sigmoid"},
    "sigmoid, normalised before": {"score": "sigmoid", "normalize_scores": True},
    "sigmoid, not normalised": {"score": "sigmoid", "normalize_gates": False},
    "scaled": {"routed_scaling": 2.5},
    "top-1": {"top_k": 1},
    "top-1 of scores that sum to 1": {"top_k": 1, "score": "sigmoid", "normalize_scores": True},
    "bias": {"bias_update": 0.1, "balance_loss": 0},
    "capacity": {"capacity_factor": 0.6},
    "shared": {"n_shared_experts": 2, "d_shared": 8},
    "gated shared, output norm": {"n_shared_experts": 1, "d_shared": 8, "shared_gate": True, "output_norm": True},
}
FIXED: dict[str, dict[str, Any]] = {
    "hash": {"router": "hash"},
    "hash table": {"router": "hash", "routing_vocab": 8},
    "word": {"router": "word"},
    "words": {"router": "word", "routing_vocab": 8},
    "random": {"router": "random"},
}
GROUPED: dict[str, dict[str, Any]] = {
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


def layer(activation: str = "swiglu", dispatch: str = "loop", **moe: Any) -> MoELayer:
    sizes = {"n_experts": E, "top_k": K, "d_expert": 8, **moe}
    shape = {"vocab_size": 32, "d_model": D, "n_layers": 1, "n_heads": 2, "activation": activation, "moe": sizes}
    found = build_model(ModelConfig.parse(shape), seed=3, dispatch=dispatch).model.layers[0].mlp
    assert isinstance(found, MoELayer)
    if found.config.bias_update:
        found.router.balance_bias.copy_(torch.linspace(-0.2, 0.2, E))
    return found


def tokens() -> Tensor:
    return torch.randn(4, 6, D, generator=torch.Generator().manual_seed(5))


def context() -> TokenContext:
    ids = torch.randint(0, 32, (4, 6), generator=torch.Generator().manual_seed(6))
    previous = torch.cat((torch.full((4, 1), -1), ids[:, :-1]), 1)
    return TokenContext(ids=ids, previous=previous, positions=torch.arange(6).expand(4, 6))


def expert(moe: MoELayer, e: int, x: Tensor) -> Tensor:
    h = moe.experts.first[e] @ x
    if moe.activation == "swiglu":
        gate, up = h.chunk(2)
        h = F.silu(gate) * up
    else:
        h = F.relu(h) if moe.activation == "relu" else F.gelu(h)
    return moe.experts.down_proj[e] @ h


def chosen_gates(moe: MoELayer, x: Tensor) -> list[tuple[int, Tensor]]:
    """One token's experts and gates by the definition, before capacity."""
    config, logits = moe.config, moe.router.weight @ x
    scores = logits.exp() / logits.exp().sum() if config.score == "softmax" else 1 / (1 + (-logits).exp())
    if config.normalize_scores:
        scores = scores / scores.sum()
    by = scores + moe.router.balance_bias if config.bias_update else scores
    best = sorted(range(E), key=lambda e: -float(by[e].detach()))[: config.top_k]
    whole = sum(scores[e] for e in best) if config.normalize_gates else 1
    return [(e, config.routed_scaling * scores[e] / whole) for e in best]


def reference(moe: MoELayer, x_BTD: Tensor) -> Tensor:
    """A MoE layer one token and one choice at a time."""
    config, rows, taken = moe.config, x_BTD.flatten(0, 1), [0] * E
    room = (
        math.ceil((config.capacity_factor or math.inf) * len(rows) * config.top_k / E) if config.capacity_factor else 0
    )
    fixed = moe.router(context()).chosen.tolist() if config.router in ("hash", "word", "random") else None
    out = []
    for t, x in enumerate(rows):
        y = torch.zeros(D)
        pairs = [(e, torch.tensor(1 / K)) for e in fixed[t]] if fixed else chosen_gates(moe, x)
        for e, gate in pairs:
            taken[e] += 1
            if not room or taken[e] <= room:
                y = y + gate * expert(moe, e, x)
        if config.output_norm:
            y = F.layer_norm(y, (D,), moe.output_norm.weight, moe.output_norm.bias, 1e-6)
        if config.n_shared_experts:
            gate = torch.sigmoid(moe.shared_router.weight @ x) if config.shared_gate else 1
            y = y + gate * moe.shared_experts(x[None])[0]
        out.append(y)
    return torch.stack(out).view_as(x_BTD)


def outputs_and_gradients(moe: MoELayer, function: Any) -> list[Tensor | None]:
    x = tokens().requires_grad_()
    y = function(x)
    weight = torch.linspace(-1, 2, y.numel()).sin().view_as(y)
    return [y.detach(), *torch.autograd.grad((y * weight).sum(), [x, *moe.parameters()], allow_unused=True)]


def assert_close(found: list[Tensor | None], expected: list[Tensor | None], tolerance: float = 1e-5) -> None:
    for a, b in zip(found, expected, strict=True):
        if b is None:
            assert a is None or not a.any()
        else:
            assert a is not None
            torch.testing.assert_close(a.float(), b, rtol=tolerance, atol=tolerance * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("activation", ["swiglu", "relu", "gelu"])
@pytest.mark.parametrize("name", TOKEN_CHOICE)
def test_token_choice(name: str, activation: str) -> None:
    moe = layer(activation, **TOKEN_CHOICE[name])
    assert_close(
        outputs_and_gradients(moe, lambda x: moe(x)[0]), outputs_and_gradients(moe, lambda x: reference(moe, x))
    )


@pytest.mark.parametrize("dispatch", sorted(set(DISPATCHES) - {"loop"}))
@pytest.mark.parametrize("name", ["sigmoid, normalised before", "capacity", "gated shared, output norm"])
def test_every_dispatch(name: str, dispatch: str) -> None:
    moe = layer(dispatch=dispatch, **TOKEN_CHOICE[name])
    assert_close(
        outputs_and_gradients(moe, lambda x: moe(x)[0]), outputs_and_gradients(moe, lambda x: reference(moe, x))
    )


@pytest.mark.parametrize("name", FIXED)
def test_fixed_routers(name: str) -> None:
    moe = layer(**FIXED[name])
    assert_close(
        outputs_and_gradients(moe, lambda x: moe(x, context=context())[0]),
        outputs_and_gradients(moe, lambda x: reference(moe, x)),
    )


@pytest.mark.parametrize("name", [*TOKEN_CHOICE, *FIXED, *GROUPED])
def test_bf16_is_near_fp32(name: str) -> None:
    """The router stays in fp32, so the choices are the same and only products round."""
    options = {**TOKEN_CHOICE, **FIXED, **GROUPED}[name]
    moe = layer(dispatch="sorted", **options)
    results = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            results.append(outputs_and_gradients(moe, lambda x: moe(x, context=context())[0]))
    assert_close(results[0], results[1], BF16)


@pytest.mark.parametrize("name", [*FIXED, "expert choice", "soft", "mixture"])
def test_one_expert_is_a_dense_feed_forward(name: str) -> None:
    options = {**FIXED, **GROUPED}[name]
    size = {"group_size": 1} if name in ("mixture", "soft") else {}
    moe = layer(**{**options, "n_experts": 1, "top_k": 1, **size})
    x = tokens()
    expected = torch.stack([expert(moe, 0, row) for row in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(moe(x, context=context())[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "sigmoid", *FIXED])
def test_identical_experts_are_a_dense_feed_forward(name: str) -> None:
    moe = layer(**{**TOKEN_CHOICE, **FIXED}[name])
    with torch.no_grad():
        for stacked in (moe.experts.first, moe.experts.down_proj):
            stacked.copy_(stacked[:1].expand_as(stacked))
    x = tokens()
    expected = torch.stack([expert(moe, 0, row) for row in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(moe(x, context=context())[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{"normalize_gates": False}, {"router": "expert_choice"}])
def test_all_experts_chosen_is_their_weighted_sum(options: dict[str, Any]) -> None:
    moe = layer(top_k=E, **options)
    x = tokens()
    gates = (x @ moe.router.weight.T).softmax(-1)
    results = torch.stack([torch.stack([expert(moe, e, r) for e in range(E)]) for r in x.flatten(0, 1)])
    expected = (gates.flatten(0, 1)[..., None] * results).sum(1).view_as(x)
    torch.testing.assert_close(moe(x)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sigmoid, normalised before", "bias", "expert choice", "soft", "mixture, learned"])
def test_permuting_experts_changes_nothing(name: str) -> None:
    moe = layer(**{**TOKEN_CHOICE, **GROUPED}[name])
    before = moe(tokens())[0]
    order = torch.tensor([2, 0, 3, 1])
    rows = [parameter for key, parameter in moe.router.state_dict().items() if key != "theta"]
    with torch.no_grad():
        for stacked in (*rows, moe.experts.first.data, moe.experts.down_proj.data):
            stacked.copy_(stacked.unflatten(0, (E, -1))[order].flatten(0, 1))
    torch.testing.assert_close(moe(tokens())[0], before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", GROUPED)
def test_padding_is_not_in_any_group(name: str) -> None:
    """Whatever padding holds, real tokens get the same, and the record does not see it."""
    moe, x = layer(**GROUPED[name]), tokens()
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[1, :4] = mask[3, :1] = False
    other = torch.where(mask[..., None], x, 7 * torch.randn(4, 6, D, generator=torch.Generator().manual_seed(1)))
    results = [moe(part, mask, record=True) for part in (x, other)]
    torch.testing.assert_close(results[0][0][mask], results[1][0][mask], rtol=1e-5, atol=1e-6)
    first, second = (output.record for _, output in results)
    assert first is not None
    assert second is not None
    assert first.summary() == pytest.approx(second.summary(), abs=1e-5)


def test_padding_takes_no_capacity() -> None:
    moe = layer(capacity_factor=0.5)
    x, mask = tokens(), torch.ones(4, 6, dtype=torch.bool)
    mask[:2] = False
    with_padding = moe(x, mask)[0][mask]
    torch.testing.assert_close(with_padding, moe(x[2:])[0].flatten(0, 1), rtol=1e-5, atol=1e-6)


def test_hard_mixing_learns_through_the_soft_weights() -> None:
    results = []
    for mixing in ("soft", "hard"):
        moe = layer(router="mixture_of_tokens", group_size=2, mixing=mixing)
        groups = tokens().transpose(0, 1).reshape(-1, 2, D)
        read, _ = moe.router.weights(groups, torch.ones(groups.shape[:2], dtype=torch.bool))
        weight = torch.linspace(-1, 2, read.numel()).sin().view_as(read)
        results.append((read.detach(), *torch.autograd.grad((read * weight).sum(), moe.router.weight)))
    assert set(results[1][0].round(decimals=6).unique().tolist()) == {0, 1}
    assert torch.equal(results[0][0].argmax(1), results[1][0].argmax(1))
    torch.testing.assert_close(results[0][1], results[1][1])
