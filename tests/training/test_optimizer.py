"""Muon against a dumb loop, the schedule's corners, and state that survives save and load."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from moelab.errors import MoelabError
from moelab.runs import TrainConfig
from moelab.training.optimizer import Optimizer, is_hidden_matrix, orthogonalize
from moelab.training.schedule import learning_rate_at

BASE = {"tokens": 10_000, "seq_len": 10, "batch_tokens": 100}


class Small(nn.Module):
    """A wide, a tall, a stacked matrix; an embedding, a router and a norm."""

    def __init__(self) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(0)
        self.embed_tokens = nn.Parameter(torch.randn(11, 6, generator=make))
        self.wide = nn.Parameter(torch.randn(4, 6, generator=make))
        self.tall = nn.Parameter(torch.randn(6, 4, generator=make))
        self.stack = nn.Parameter(torch.randn(3, 6, 4, generator=make))
        self.router = nn.Parameter(torch.randn(6, 3, generator=make))
        self.norm = nn.Parameter(torch.ones(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.embed_tokens[x] * self.norm @ self.tall @ self.wide
        gates = torch.softmax(h @ self.router, -1)
        return (torch.einsum("te,efd,tf->td", gates, self.stack, h) ** 2).sum()


def config(**changes: object) -> TrainConfig:
    return TrainConfig.parse({**BASE, "optimizer": "muon", **changes})


def train(model: Small, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        model(torch.tensor([step % 11, 3, 5])).backward()
        optimizer.step(0.01)


def test_which_parameters_go_to_muon() -> None:
    model = Small()
    chosen = {name for name, p in model.named_parameters() if is_hidden_matrix(name, p)}
    assert chosen == {"wide", "tall", "stack"}


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(5, 8, 20, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalize(matrices))
    assert values.min() > 0.6
    assert values.max() < 1.3


def reference_muon(weight: torch.Tensor, grads: list[torch.Tensor], lr: float, c: TrainConfig) -> torch.Tensor:
    """One matrix at a time, straight from the definition."""
    momentum = torch.zeros_like(weight)
    for grad in grads:
        momentum = c.muon_momentum * momentum + (1 - c.muon_momentum) * grad
        update = (1 - c.muon_momentum) * grad + c.muon_momentum * momentum
        x = update if update.shape[0] <= update.shape[1] else update.T
        x = x / (x.norm() + 1e-7)
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        x = x if update.shape[0] <= update.shape[1] else x.T
        weight = weight * (1 - lr * c.weight_decay) - lr * 0.2 * math.sqrt(max(weight.shape)) * x
    return weight


def test_muon_equals_the_definition_for_every_matrix_and_expert() -> None:
    model, c = Small(), config(grad_clip=0)
    optimizer = Optimizer(model, c)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    make = torch.Generator().manual_seed(2)
    history: dict[str, list[torch.Tensor]] = {name: [] for name in before}
    for _ in range(3):
        for name, p in model.named_parameters():
            p.grad = torch.randn(p.shape, generator=make)
            history[name].append(p.grad.clone())
        optimizer.step(0.02)
    for name in ("wide", "tall"):
        expected = reference_muon(before[name], history[name], 0.02, c)
        torch.testing.assert_close(getattr(model, name).detach(), expected, atol=1e-5, rtol=1e-4)
    for expert in range(3):
        expected = reference_muon(before["stack"][expert], [g[expert] for g in history["stack"]], 0.02, c)
        torch.testing.assert_close(model.stack.detach()[expert], expected, atol=1e-5, rtol=1e-4)


class Gated(nn.Module):
    """A dense and a stacked fused gate and up projection, their way down, and a norm that AdamW steps."""

    def __init__(self) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(4)
        self.gate_up_proj = nn.Linear(4, 10, bias=False)
        self.norm = nn.Parameter(torch.ones(4))
        self.experts = nn.ParameterDict(
            {
                "gate_up_proj": nn.Parameter(torch.randn(3, 10, 4, generator=make)),
                "down_proj": nn.Parameter(torch.randn(3, 4, 5, generator=make)),
            }
        )


@pytest.mark.parametrize("split", [True, False, None])
def test_muon_takes_gate_and_up_as_two_matrices_or_as_one(split: bool | None) -> None:
    """Two is what the reference implementation orthogonalises (Megatron-LM issue 7077); one is what 0.1 did."""
    model, c = Gated(), config(grad_clip=0, muon_split=split)
    optimizer = Optimizer(model, c)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    make = torch.Generator().manual_seed(2)
    history: dict[str, list[torch.Tensor]] = {name: [] for name in before}
    for _ in range(3):
        for name, p in model.named_parameters():
            p.grad = torch.randn(p.shape, generator=make)
            history[name].append(p.grad.clone())
        optimizer.step(0.02)

    def expected(name: str, pick: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The reference on what `pick` takes of the parameter, in halves where it is fused and they are split."""
        weight, grads = pick(before[name]), [pick(g) for g in history[name]]
        if "gate_up" not in name or not split:
            return reference_muon(weight, grads, 0.02, c)
        halves = zip(weight.chunk(2), *(g.chunk(2) for g in grads), strict=True)
        return torch.cat([reference_muon(half, list(its), 0.02, c) for half, *its in halves])

    after = {name: p.detach() for name, p in model.named_parameters()}
    torch.testing.assert_close(
        after["gate_up_proj.weight"], expected("gate_up_proj.weight", lambda t: t), atol=1e-5, rtol=1e-4
    )
    for name in ("experts.gate_up_proj", "experts.down_proj"):
        for expert in range(3):
            found = expected(name, lambda t, e=expert: t[e])
            torch.testing.assert_close(after[name][expert], found, atol=1e-5, rtol=1e-4)


def test_muon_steps_of_experts_without_tokens_are_counted() -> None:
    """Their momentum alone moves them, at full size; an expert that never had a token stays."""
    model = Gated()
    optimizer = Optimizer(model, config(grad_clip=0, weight_decay=0))
    with_tokens = [{0, 1}, {0}, {0}, {0, 1}]
    moved = []
    for experts in with_tokens:
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
            if p.ndim == 3:
                p.grad[[expert for expert in range(3) if expert not in experts]] = 0
        before = model.experts["down_proj"].detach().clone()
        optimizer.step(0.1)
        moved.append((model.experts["down_proj"].detach() - before).norm(dim=(1, 2)))
    assert optimizer.muon is not None
    assert optimizer.muon.expert_steps.tolist() == [12, 2]
    assert moved[1][1] > 0.5 * moved[0][1]
    assert not any(step[2] for step in moved)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_state_restored_in_a_new_optimizer_continues_bit_for_bit(kind: str) -> None:
    straight, c = Small(), config(optimizer=kind)
    whole = Optimizer(straight, c)
    train(straight, whole, range(6))
    first = Small()
    half = Optimizer(first, c)
    train(first, half, range(3))
    second = Small()
    second.load_state_dict(first.state_dict())
    rest = Optimizer(second, c)
    rest.load_state({name: tensor.clone() for name, tensor in half.state().items()})
    train(second, rest, range(3, 6))
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_missing_state_is_named() -> None:
    optimizer = Optimizer(Small(), config())
    with pytest.raises(MoelabError, match=r"wide\.momentum"):
        optimizer.load_state({})


def test_norms_do_not_decay() -> None:
    model = Small()
    optimizer = Optimizer(model, config(weight_decay=0.5))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    assert torch.equal(model.norm.detach(), torch.ones(6))
    assert torch.allclose(model.router.detach(), Small().router.detach() * 0.95)


@pytest.mark.parametrize(
    ("on", "decaying"),
    [
        ("matrices", {"embed_tokens", "wide", "tall", "stack", "router"}),
        ("hidden", {"wide", "tall", "stack"}),
        ("all", {"embed_tokens", "wide", "tall", "stack", "router", "norm"}),
    ],
)
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_which_weights_decay(kind: str, on: str, decaying: set[str]) -> None:
    model = Small()
    optimizer = Optimizer(model, config(optimizer=kind, weight_decay=0.5, weight_decay_on=on))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    before = dict(Small().named_parameters())
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name].detach() * (0.95 if name in decaying else 1))


def test_clipping_limits_the_global_norm() -> None:
    model = Small()
    optimizer = Optimizer(model, config(grad_clip=1.0))
    for p in model.parameters():
        p.grad = torch.full_like(p, 3.0)
    count = sum(p.numel() for p in model.parameters())
    assert float(optimizer.step(0.0)) == pytest.approx(3 * math.sqrt(count), rel=1e-5)


class TestSchedule:
    def test_warmup_reaches_the_peak(self) -> None:
        c = config(warmup_fraction=0.1, learning_rate=1.0)
        assert [learning_rate_at(s, c) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])

    def test_cosine_ends_at_the_final_fraction(self) -> None:
        c = config(schedule="cosine", learning_rate=1.0, final_lr_fraction=0.1, warmup_fraction=0)
        assert learning_rate_at(0, c) == 1.0
        assert learning_rate_at(50, c) == pytest.approx(0.55)
        assert learning_rate_at(99, c) == pytest.approx(0.1, abs=1e-3)

    def test_wsd_is_flat_then_falls_to_the_end(self) -> None:
        c = config(schedule="wsd", learning_rate=1.0, final_lr_fraction=0.0, warmup_fraction=0, decay_fraction=0.2)
        assert [learning_rate_at(s, c) for s in (0, 50, 79)] == [1.0, 1.0, 1.0]
        assert learning_rate_at(89, c) == pytest.approx(0.5)
        assert learning_rate_at(99, c) == 0.0

    @pytest.mark.parametrize("final", [0.0, 0.1, 0.3, 1.0])
    def test_the_last_step_of_wsd_has_exactly_the_final_rate(self, final: float) -> None:
        c = config(schedule="wsd", learning_rate=0.003, final_lr_fraction=final, decay_fraction=0.2)
        assert learning_rate_at(99, c) == 0.003 * final
        rates = [learning_rate_at(s, c) for s in range(79, 100)]
        assert rates == pytest.approx([0.003 * (1 - (1 - final) * i / 20) for i in range(21)])

    def test_constant(self) -> None:
        c = config(schedule="constant", learning_rate=2.0, warmup_fraction=0)
        assert {learning_rate_at(s, c) for s in range(c.steps)} == {2.0}
