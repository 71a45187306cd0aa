"""Identities of a MoE layer, its auxiliary losses, and the routing record."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.model import DISPATCHES, MoELayer, RoutingRecord, build_model
from moelab.model.feed_forward import FeedForward
from moelab.model.router import TopKRouter, balance_loss, expert_counts, router_z_loss

D = 16


def config(**moe: Any) -> ModelConfig:
    sizes = {"n_experts": 4, "top_k": 2, "d_expert": 8, **moe}
    return ModelConfig.parse({"vocab_size": 32, "d_model": D, "n_layers": 1, "n_heads": 2, "moe": sizes})


def layer(dispatch: str = "loop", **moe: Any) -> MoELayer:
    found = build_model(config(**moe), seed=3, dispatch=dispatch).model.layers[0].mlp
    assert isinstance(found, MoELayer)
    return found


def dense_equal(moe: MoELayer, expert: int = 0) -> FeedForward:
    """A dense feed-forward with the weights of one expert."""
    _, _, width = moe.experts.down_proj.shape
    dense = FeedForward(D, width, moe.activation)
    dense.load_state_dict(
        {"gate_up_proj.weight": moe.experts.first[expert], "down_proj.weight": moe.experts.down_proj[expert]}
    )
    return dense


def tokens(n: int = 12) -> Tensor:
    return torch.randn(2, n // 2, D, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", DISPATCHES)
def test_one_expert_is_a_dense_feed_forward(name: str) -> None:
    moe = layer(name, n_experts=1, top_k=1)
    torch.testing.assert_close(moe(tokens())[0], dense_equal(moe)(tokens()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DISPATCHES)
def test_identical_experts_are_a_dense_feed_forward(name: str) -> None:
    moe = layer(name)
    with torch.no_grad():
        for stacked in (moe.experts.first, moe.experts.down_proj):
            stacked.copy_(stacked[:1].expand_as(stacked))
    torch.testing.assert_close(moe(tokens())[0], dense_equal(moe)(tokens()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DISPATCHES)
def test_all_experts_chosen_is_their_weighted_sum(name: str) -> None:
    moe = layer(name, n_experts=3, top_k=3, normalize_gates=False)
    x = tokens()
    gates = F.linear(x, moe.router.weight).softmax(-1)
    expected = sum(gates[..., e, None] * dense_equal(moe, e)(x) for e in range(3))
    torch.testing.assert_close(moe(x)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", DISPATCHES)
def test_permuting_experts_changes_nothing(name: str) -> None:
    moe = layer(name, n_experts=6, top_k=3)
    before = moe(tokens())[0]
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    with torch.no_grad():
        for parameter in (moe.router.weight, moe.experts.first, moe.experts.down_proj):
            parameter.copy_(parameter[order])
    torch.testing.assert_close(moe(tokens())[0], before, rtol=1e-5, atol=1e-6)


def test_shared_experts_are_added() -> None:
    moe = layer(n_shared_experts=2, d_shared=8)
    x = tokens()
    alone = layer()(x)[0]
    torch.testing.assert_close(moe(x)[0], alone + moe.shared_experts(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalize", [True, False])
@torch.no_grad()
def test_gates_against_a_loop(score: str, normalize: bool) -> None:
    router = layer(score=score, normalize_gates=normalize, routed_scaling=2.5).router
    x = tokens().flatten(0, 1)
    routing = router(x)
    for token in range(len(x)):
        logits = router.weight @ x[token]
        scores = logits.exp() / logits.exp().sum() if score == "softmax" else 1 / (1 + (-logits).exp())
        best = sorted(range(4), key=lambda e: -float(scores[e]))[:2]
        gates = scores[best] / scores[best].sum() if normalize else scores[best]
        assert routing.chosen[token].tolist() == best
        torch.testing.assert_close(routing.gates[token], 2.5 * gates, rtol=1e-5, atol=1e-6)


def test_the_router_stays_in_fp32() -> None:
    moe = layer()
    x = tokens().flatten(0, 1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        routing = moe.router(x)
    assert routing.logits.dtype == routing.gates.dtype == torch.float32
    torch.testing.assert_close(routing.logits, x.float() @ moe.router.weight.T)


def test_balance_loss_is_one_at_balance_and_e_at_collapse() -> None:
    uniform = torch.full((8, 4), 0.25)
    even = torch.arange(8).remainder(4)[:, None]
    assert balance_loss(uniform, expert_counts(even, 4)).item() == pytest.approx(1)
    collapsed = F.one_hot(torch.zeros(8, dtype=torch.long), 4).float()
    assert balance_loss(collapsed, expert_counts(torch.zeros(8, 1, dtype=torch.long), 4)).item() == pytest.approx(4)


def test_auxiliary_losses_against_loops_and_with_padding() -> None:
    router = TopKRouter(D, config(score="sigmoid").moe)  # type: ignore[arg-type]
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(1))
    x = tokens().flatten(0, 1)
    mask = torch.tensor([True] * 9 + [False] * 3)
    routing = router(x)
    counts = expert_counts(routing.chosen, 4, mask)
    expected_balance, expected_z = 0.0, 0.0
    for expert in range(4):
        share = sum((routing.chosen[t] == expert).sum().item() for t in range(9)) / 18
        mean = sum((routing.scores[t, expert] / routing.scores[t].sum()).item() for t in range(9)) / 9
        expected_balance += 4 * share * mean
    for t in range(9):
        expected_z += math.log(routing.logits[t].exp().sum().item()) ** 2 / 9
    assert balance_loss(routing.probabilities(), counts, mask).item() == pytest.approx(expected_balance, rel=1e-5)
    assert router_z_loss(routing.logits, mask).item() == pytest.approx(expected_z, rel=1e-5)
    other = router(torch.cat((x[:9], torch.randn(3, D))))
    assert router_z_loss(other.logits, mask).item() == pytest.approx(expected_z, rel=1e-5)


def record_of(logits: list[list[float]], top_k: int = 1, mask: list[bool] | None = None) -> RoutingRecord:
    moe = layer(n_experts=len(logits[0]), top_k=top_k, normalize_gates=False)
    with torch.no_grad():
        moe.router.weight.copy_(torch.eye(len(logits[0]), D))
    x = F.pad(torch.tensor(logits), (0, D - len(logits[0])))[None]
    record = moe(x, None if mask is None else torch.tensor(mask)[None], record=True)[1].record
    assert record is not None
    return record


def test_record_of_a_balanced_and_of_a_collapsed_layer() -> None:
    even = record_of([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 9.0, 0], [0, 0, 0, 9.0]])
    assert even.load.tolist() == [0.25] * 4
    assert even.summary() == pytest.approx(
        {
            "max_violation": 0,
            "load_cv": 0,
            "dead_experts": 0,
            "token_entropy": even.token_entropy,
            "marginal_entropy": 1,
            "balance_loss": 1,
            "near_ties": 0,
            "drop_rate": 0,
        }
    )
    assert even.token_entropy < 0.01
    collapsed = record_of([[9.0, 0, 0, 0]] * 4)
    assert (collapsed.max_violation, collapsed.dead_experts) == (3, 3)
    assert collapsed.load_cv == pytest.approx(math.sqrt(3))
    assert collapsed.balance_loss == pytest.approx(4, rel=1e-2)


def test_record_counts_near_ties_and_leaves_padding_out() -> None:
    record = record_of(
        [[1.0, 1.0001, 0, 0], [3.0, 0, 0, 0], [0, 0, 5.0, 0], [0, 0, 0, 5.0]], mask=[True, True, False, False]
    )
    assert record.near_ties == 0.5
    assert record.load.tolist() == [0.5, 0.5, 0, 0]


def test_no_record_and_no_losses_unless_asked() -> None:
    output = layer()(tokens())[1]
    assert output.record is None
    assert output.balance is None
    assert output.router_z is None
