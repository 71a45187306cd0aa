"""Multi-token prediction: what each module sees and predicts, its loss, and that inference knows nothing of it."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moelab.architecture import ModelConfig, count_flops, count_parameters
from moelab.errors import InputError
from moelab.evaluation.leaks import certify
from moelab.model import LanguageModel, build_model
from moelab.model.generate import generate
from moelab.model.masks import Positions, layer_contexts
from moelab.model.multi_token import MTP_LOSS, further_loss
from moelab.runs import RunConfig

V, D, T = 32, 16, 7
MOE = {"n_experts": 4, "top_k": 2, "d_expert": 8}
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"d_ff": 24},
    "moe": {"moe": MOE},
    "moe after a dense layer, bias": {
        "d_ff": 24, "n_dense_layers": 1, "moe": {**MOE, "score": "sigmoid", "bias_update": 0.1},
    },
    "hash": {"moe": {**MOE, "router": "hash"}},
    "words by hash": {"moe": {**MOE, "router": "word"}},
    "expert choice": {"moe": {**MOE, "router": "expert_choice"}},
    "untied": {"d_ff": 24, "tie_embeddings": False},
}  # fmt: skip


def config(n_modules: int | None = 2, **changes: Any) -> ModelConfig:
    sizes = {"vocab_size": V, "d_model": D, "n_layers": 2, "n_heads": 2, "mtp_layers": n_modules}
    return ModelConfig.parse({name: value for name, value in {**sizes, **changes}.items() if value is not None})


def tokens(batch: int = 4) -> tuple[Tensor, Tensor]:
    text = torch.randint(0, V, (batch, T + 1), generator=torch.Generator().manual_seed(1))
    return text[:, :-1], text[:, 1:]


def further_by_hand(model: LanguageModel, ids: Tensor, targets: Tensor) -> list[Tensor]:
    """Each module's mean cross-entropy, its inputs put together token by token (section 2.2 of the paper)."""
    state, _ = model.hidden(ids)
    rows, losses = list(state.unbind(1)), []
    for k in range(1, len(model.mtp) + 1):
        module: Any = model.mtp[k - 1]
        inputs = []
        for i in range(T - k):
            pair = (module.enorm(model.model.embed_tokens(ids[:, i + k])), module.hnorm(rows[i]))
            inputs.append(torch.cat(pair, -1) @ module.eh_proj.weight.T)
        attention = layer_contexts(model.config, Positions(0, T - k, None, ids.device), None)[-1]
        context = model._context(ids, None, None)
        after = None if context is None else context.from_position(k)
        y, _ = module.layer(torch.stack(inputs, 1), attention, mask_BT=None, context=after)
        rows = list(module.norm(y).unbind(1))
        nats = [
            -(rows[i] @ model.head_weight.T).log_softmax(-1)[range(len(ids)), targets[:, i + k]] for i in range(T - k)
        ]
        losses.append(torch.stack(nats).mean())
    return losses


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_and_its_gradients_are_the_papers(name: str) -> None:
    model = build_model(config(**KINDS[name]), seed=0)
    ids, targets = tokens()
    found = model.loss(ids, targets).auxiliary["mtp"]
    expected = MTP_LOSS * torch.stack(further_by_hand(model, ids, targets)).mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    leaves = list(model.parameters())
    for a, b in zip(*(torch.autograd.grad(y, leaves, allow_unused=True) for y in (found, expected)), strict=True):
        if a is None or b is None:
            assert all(each is None or not each.any() for each in (a, b))
        else:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_inference_and_the_reported_loss_know_nothing_of_it(name: str) -> None:
    model, plain = (build_model(config(n, **KINDS[name]), seed=0) for n in (2, None))
    ids, targets = tokens()
    assert torch.equal(model(ids), plain(ids))
    one, other = model.loss(ids, targets), plain.loss(ids, targets)
    assert torch.equal(one.loss, other.loss)
    assert "mtp" not in other.auxiliary
    assert set(model.loss(ids, targets, reduction="none").auxiliary) == set()
    assert generate(model, [[1, 2, 3]], max_new_tokens=5, temperature=0) == generate(
        plain, [[1, 2, 3]], max_new_tokens=5, temperature=0
    )


def test_the_total_is_the_loss_and_its_terms() -> None:
    model = build_model(config(**KINDS["moe"]), seed=0)
    ids, targets = tokens()
    output = model.loss(ids, targets, mtp_loss=0.1)
    assert set(output.auxiliary) == {"balance", "router_z", "mtp"}
    torch.testing.assert_close(output.total, output.loss + sum(output.auxiliary.values()))
    torch.testing.assert_close(3 * output.auxiliary["mtp"], model.loss(ids, targets).auxiliary["mtp"])


@torch.no_grad()
def test_module_k_sees_the_tokens_up_to_the_k_th_after() -> None:
    model = build_model(config(**KINDS["moe"]), seed=0).double()
    ids, _ = tokens()
    changed = ids.clone()
    changed[1, 4] = (changed[1, 4] + 1) % V
    both = [model._further(model.hidden(each)[0], each, None, "batch") for each in (ids, changed)]
    for k, ((one, _), (other, _)) in enumerate(zip(*both, strict=True), 1):
        difference = (one - other).abs().amax(-1)
        assert difference[[0, 2, 3]].max() < 1e-9
        assert difference[1, : 4 - k].max() < 1e-9
        assert difference[1, 4 - k] > 1e-6


@torch.no_grad()
def test_padding_before_a_text_changes_nothing() -> None:
    model = build_model(config(**KINDS["moe"]), seed=0)
    ids, targets = tokens(1)
    padded, mask = torch.cat((torch.zeros(1, 3, dtype=torch.int64), ids), 1), torch.ones(1, T + 3, dtype=torch.bool)
    mask[:, :3] = False
    ignored = torch.cat((torch.full((1, 3), -100), targets), 1)
    one, other = model.loss(ids, targets), model.loss(padded, ignored, mask=mask)
    torch.testing.assert_close(one.auxiliary["mtp"], other.auxiliary["mtp"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.auxiliary["balance"], other.auxiliary["balance"], rtol=1e-5, atol=1e-6)


def test_a_text_shorter_than_the_modules_reach() -> None:
    model = build_model(config(3, d_ff=24), seed=0)
    ids, targets = tokens()
    assert len(model._further(model.hidden(ids[:, :2])[0], ids[:, :2], None, "batch")) == 1
    alone = model.loss(ids[:, :1], targets[:, :1])
    assert torch.equal(alone.total, alone.loss)
    assert float(further_loss([], model.head, targets, "mean")) == 0


def test_balance_counts_include_the_modules() -> None:
    model = build_model(config(**KINDS["moe"]), seed=0)
    ids, targets = tokens()
    counts = model.balance_counts(ids)
    assert counts.shape == (4, 4)
    assert counts.sum(1).tolist() == [len(ids) * 2 * length for length in (T, T, T - 1, T - 2)]
    one = model.loss(ids, targets).total
    other = model.loss(ids, targets, whole_counts=lambda _: counts).total
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["dense", "moe after a dense layer, bias"])
def test_leak_certificate(name: str) -> None:
    assert certify(config(**KINDS[name]), batch=4, seq_len=6, trials=4).clean


def test_it_learns_with_the_model() -> None:
    model = build_model(config(**KINDS["moe"]), seed=0)
    ids, targets = tokens()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        output = model.loss(ids, targets)
        output.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append((output.loss.item(), output.auxiliary["mtp"].item()))
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert losses[-1][1] < 0.7 * losses[0][1]


def test_a_weight_needs_modules() -> None:
    train = {"tokens": 64, "seq_len": 16, "batch_tokens": 64, "mtp_loss": 0.1}
    plain = {"model": config(None, d_ff=24).to_dict(), "data": {"path": "x"}, "train": train}
    with pytest.raises(InputError, match=r"train.mtp_loss: needs model.mtp_layers"):
        RunConfig.parse(plain)
    assert RunConfig.parse({**plain, "model": config(1, d_ff=24).to_dict()}).train.mtp_loss == 0.1


@pytest.mark.parametrize("hidden", [1, 2])
def test_a_module_is_that_of_transformers(hidden: int) -> None:
    """DeepSeek-V3's, as its class builds it: latent attention, sigmoid scores, a bias, shared experts."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_layers import MtpLayer
    from transformers.models.deepseek_v3 import modeling_deepseek_v3 as theirs_v3

    mla = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
    moe = {**MOE, "score": "sigmoid", "bias_update": 0.1, "n_shared_experts": 1, "d_shared": 8}
    model = build_model(config(1, mla=mla, moe=moe, qk_norm="none", rope_interleaved=True), seed=0, dispatch="loop")
    module: Any = model.mtp[0]
    generator = torch.Generator().manual_seed(hidden)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    own = transformers.DeepseekV3Config(
        vocab_size=V, hidden_size=D, moe_intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, n_group=1, topk_group=1,
        routed_scaling_factor=1.0, first_k_dense_replace=0, **mla,
    )  # fmt: skip
    own._attn_implementation = "eager"
    theirs = MtpLayer(own, theirs_v3.DeepseekV3DecoderLayer, theirs_v3.DeepseekV3RMSNorm, 0)
    theirs.load_state_dict(_their_names(module.state_dict()))
    state, embedded = (torch.randn(2, 6, D, generator=generator, requires_grad=True) for _ in range(2))
    attention = layer_contexts(model.config, Positions(0, 6, None, state.device), None)[-1]
    ours, _ = module(state, embedded, attention, {"mask_BT": None, "context": None})
    rotary = theirs_v3.DeepseekV3RotaryEmbedding(own)(state, torch.arange(6)[None])
    causal = torch.full((6, 6), -torch.inf).triu(1)[None, None]
    found = theirs(embedded, state, rotary, causal, None, None)
    torch.testing.assert_close(ours, found, rtol=1e-5, atol=1e-5)
    weight = torch.linspace(-1, 2, ours.numel()).sin().view_as(ours)
    pairs = [(ours, [module.eh_proj.weight]), (found, [theirs.eh_proj.weight])]
    slopes = [torch.autograd.grad((y * weight).sum(), [state, embedded, *leaves]) for y, leaves in pairs]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def _their_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in state.items():
        name = name.replace("layer.", "mtp_block.", 1) if name.startswith("layer.") else name
        name = "post_norm.weight" if name == "norm.weight" else name
        name = name.replace("router.weight", "gate.weight").replace(
            "router.balance_bias", "gate.e_score_correction_bias"
        )
        if name.endswith("shared_experts.gate_up_proj.weight"):
            gate, up = tensor.chunk(2)
            head = name.removesuffix("gate_up_proj.weight")
            found |= {f"{head}gate_proj.weight": gate, f"{head}up_proj.weight": up}
        else:
            found[name] = tensor
    return found


COUNTED: dict[str, dict[str, Any]] = {
    "dense": {"d_ff": 24},
    "latent, hashed, biased experts": {
        "d_ff": 24, "n_dense_layers": 1, "n_layers": 3,
        "moe": {
            **MOE, "d_latent": 8, "hash_layers": 1, "router_bias": True, "expert_bias": True, "n_shared_experts": 1,
            "d_shared": 8,
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_modules_are_counted_as_built(name: str) -> None:
    """Parameters exactly, and FLOPs: module k computes the T - k positions that have something to predict."""
    own = config(**COUNTED[name])
    model, counted = build_model(own, dispatch="loop"), count_parameters(own)
    assert sum(parameter.numel() for parameter in model.parameters()) == counted.params_trained
    assert sum(parameter.numel() for parameter in model.mtp.parameters()) == counted.mtp
    ids, _ = tokens(2)
    with torch.no_grad():
        state, _ = model.hidden(ids)
        with FlopCounterMode(display=False) as flops, sdpa_kernel(SDPBackend.MATH):
            for further, _ in model._further(state, ids, None, "batch"):
                model.head.logits(further)
    one = own.replace(mtp_layers=1)
    assert flops.get_total_flops() == sum(2 * (T - k) * count_flops(one, T - k).mtp for k in (1, 2))
