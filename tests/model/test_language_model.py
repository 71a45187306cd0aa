"""The whole model: initialisation, causality, loss against torch, auxiliary terms, precision, refusals."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from moelab.architecture import ModelConfig, load_preset
from moelab.errors import InputError
from moelab.model import DISPATCHES, LanguageModel, build_model, resolve_dispatch

MOE = {"n_experts": 4, "top_k": 2, "d_expert": 8, "n_shared_experts": 1, "d_shared": 8}


def config(moe: dict[str, Any] | None = MOE, **changes: Any) -> ModelConfig:
    sizes = {"vocab_size": 48, "d_model": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "d_ff": 24}
    extra = {"moe": moe, "n_dense_layers": 1} if moe else {}
    return ModelConfig.parse({**sizes, **extra, **changes})


def batch(length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    text = torch.randint(0, 48, (3, length + 1), generator=torch.Generator().manual_seed(2))
    return text[:, :-1], text[:, 1:]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = build_model(config(), seed=7).state_dict()
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    second = build_model(config(), seed=7).state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build_model(config(), seed=8).state_dict()
    assert not torch.equal(first["model.layers.1.mlp.router.weight"], other["model.layers.1.mlp.router.weight"])
    assert all(tensor.dtype == torch.float32 for tensor in first.values())


def test_initial_scales() -> None:
    state = build_model(config(d_model=64, n_layers=4, d_ff=256), seed=0).state_dict()
    layer = "model.layers.0."
    assert state[layer + "mlp.gate_up_proj.weight"].std().item() == pytest.approx(1 / 8, rel=0.05)
    assert state[layer + "mlp.down_proj.weight"].std().item() == pytest.approx(1 / 16 / math.sqrt(8), rel=0.05)
    assert state[layer + "self_attn.o_proj.weight"].std().item() == pytest.approx(1 / 8 / math.sqrt(8), rel=0.05)
    assert state["model.embed_tokens.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(state["model.norm.weight"], torch.ones(64))
    assert state["model.layers.1.mlp.router.weight"].abs().min() > 0


def test_models_that_share_a_part_start_it_alike() -> None:
    dense = build_model(config(None), seed=1).state_dict()
    moe = build_model(config(), seed=1).state_dict()
    assert torch.equal(dense["model.layers.1.self_attn.q_proj.weight"], moe["model.layers.1.self_attn.q_proj.weight"])


@pytest.mark.parametrize("moe", [None, MOE])
@pytest.mark.parametrize("qk_norm", ["none", "head", "full"])
def test_later_tokens_do_not_change_earlier_logits(moe: dict[str, Any] | None, qk_norm: str) -> None:
    model = build_model(config(moe, qk_norm=qk_norm), seed=0)
    tokens, _ = batch()
    changed = tokens.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % 48
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :7], before[:, :7], rtol=1e-5, atol=1e-6)
    assert (after[:, 7:] - before[:, 7:]).abs().amin(dim=(0, 2)).max() > 0


@pytest.mark.parametrize("tied", [True, False])
def test_loss_equals_torch_and_auxiliary_terms_stay_apart(tied: bool) -> None:
    model = build_model(config(tie_embeddings=tied), seed=0)
    tokens, targets = batch()
    output = model.loss(tokens, targets, logit_z_loss=1e-2)
    logits = model(tokens)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(output.auxiliary) == {"balance", "router_z", "logit_z"}
    assert output.auxiliary["balance"].item() == pytest.approx(0.01, rel=0.5)
    assert output.auxiliary["logit_z"].item() == pytest.approx(
        1e-2 * logits.logsumexp(-1).square().mean().item(), rel=1e-5
    )
    total = output.loss.item() + sum(term.item() for term in output.auxiliary.values())
    assert output.total.item() == pytest.approx(total, rel=1e-6)
    per_token = model.loss(tokens, targets, reduction="none")
    assert per_token.loss.shape == targets.shape
    assert per_token.loss.mean().item() == pytest.approx(expected.item(), rel=1e-5)


def test_ignored_targets_leave_the_mean() -> None:
    model = build_model(config(), seed=0)
    tokens, targets = batch()
    hidden_part = targets.clone()
    hidden_part[:, 5:] = -100
    expected = model.loss(tokens, targets, reduction="none").loss[:, :5].mean()
    assert model.loss(tokens, hidden_part).loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", DISPATCHES)
def test_every_dispatch_trains_alike(name: str) -> None:
    tokens, targets = batch()
    gradients = []
    for dispatch in ("loop", name):
        model = build_model(config(), seed=0, dispatch=dispatch)
        model.loss(tokens, targets).total.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    for parameter, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][parameter], expected, rtol=1e-5, atol=1e-6)


def test_padding_changes_neither_logits_nor_records() -> None:
    model = build_model(config(), seed=0)
    tokens, targets = batch()
    padded = torch.cat((torch.zeros(3, 4, dtype=torch.long), tokens), 1)
    ignored = torch.cat((torch.full((3, 4), -100), targets), 1)
    mask = torch.ones_like(padded, dtype=torch.bool)
    mask[:, :4] = False
    plain = model.loss(tokens, targets, collect_routing=True)
    with_padding = model.loss(padded, ignored, mask=mask, collect_routing=True)
    assert with_padding.loss.item() == pytest.approx(plain.loss.item(), rel=1e-5)
    assert with_padding.total.item() == pytest.approx(plain.total.item(), rel=1e-5)
    assert with_padding.routing[0].summary() == pytest.approx(plain.routing[0].summary(), rel=1e-4)


def test_autocast_is_near_fp32() -> None:
    model = build_model(config(), seed=0)
    tokens, targets = batch()
    exact = model.loss(tokens, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.loss(tokens, targets)
    rounded.total.backward()
    assert rounded.loss.dtype == torch.float32
    assert rounded.loss.item() == pytest.approx(exact.loss.item(), rel=1e-2)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_a_few_steps_learn() -> None:
    model = build_model(config(), seed=0)
    tokens, targets = batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        output = model.loss(tokens, targets)
        output.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert losses[0] == pytest.approx(math.log(48), abs=0.3)
    assert losses[-1] < 0.3 * losses[0]


def test_counted_only_models_are_refused() -> None:
    with pytest.raises(InputError, match="counts but cannot build a router bias of the router hash"):
        build_model(config({"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "hash", "router_bias": True}))


@pytest.mark.parametrize("preset", ["deepseek-v3", "gpt-oss-120b"])
def test_models_beyond_the_memory_are_refused(preset: str) -> None:
    with pytest.raises(InputError, match=r"model: its \d+B parameters take .* in fp32; this machine has"):
        build_model(load_preset(preset))


def test_unknown_dispatch_is_refused() -> None:
    with pytest.raises(InputError, match="dispatch: must be one of auto, loop"):
        build_model(config(), dispatch="fast")


def test_dispatch_is_resolved_to_a_name() -> None:
    assert resolve_dispatch(config(None), "cpu", torch.float32) == "none"
    assert resolve_dispatch(config(), "cpu", torch.float32) in DISPATCHES
    assert resolve_dispatch(config(), "cuda", torch.bfloat16) == "grouped"
    narrow = config({**MOE, "d_expert": 12})
    assert resolve_dispatch(narrow, "cuda", torch.bfloat16) == "padded"
    assert isinstance(build_model(config()), LanguageModel)


@pytest.mark.parametrize("moe", [None, {"n_experts": 4, "top_k": 1, "d_expert": 8, "router": "hash"}])
@pytest.mark.parametrize("wrong", [64, -1])
def test_an_id_beyond_the_vocabulary_is_one_line(moe: dict[str, Any] | None, wrong: int) -> None:
    shape = {"vocab_size": 64, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32}
    model = build_model(ModelConfig.parse({**shape, "moe": moe} if moe else shape), seed=0)
    tokens = torch.tensor([[1, 2, wrong, 3]])
    with pytest.raises(InputError, match=f"tokens: must be 0 to 63, got {wrong}"):
        model(tokens)
    with pytest.raises(InputError, match="targets: must be 0 to 63, or -100 to be ignored; got 64"):
        model.loss(torch.zeros_like(tokens), torch.tensor([[1, 2, 64, 3]]))
