"""Is it right? Kernels against their references, gradients against the CPU's, bf16's error beside transformers'."""

import statistics
from typing import Any

import torch
from torch import Tensor

from gpu_sections.common import Bench, error, has, peer_model, text, within, without_kernels
from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, build_model
from moelab.model.cross_entropy import IGNORED, linear_cross_entropy
from moelab.model.dispatch import DISPATCHES
from moelab.model.router import Routing

MOE = {"n_experts": 8, "top_k": 3, "d_expert": 48, "normalize_gates": False}
ALL = {**MOE, "top_k": 8}
"""Every token goes to every expert: no route can flip, and what is left is rounding."""
SHAPES = ((1, 1, 1, 16, 16), (37, 3, 7, 72, 40), (1000, 8, 64, 264, 136), (513, 2, 4, 2056, 1032))
"""Tokens, K, E, D, F: odd numbers of rows, widths of whole 16 bytes."""
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Relative errors by the dtype of the products: far above what fp32 has (1e-6), a few roundings of bf16."""
FARTHER = 1.1
"""How many times as far from fp32 as transformers' the gradients in bf16 may be."""


PEERS = {"dense": ("",), "moe": ("eager", "grouped_mm")}
"""How transformers runs experts; the first computes as we do."""


def run(bench: Bench) -> None:
    """Kernels, cross-entropy, whole models in fp32, whole models in bf16."""
    for shape in SHAPES[: bench.pick(4, 2)]:
        for dtype in (torch.float32, torch.bfloat16) if bench.dry else (torch.bfloat16,):
            with bench.guarded("grouped against loop", shape=shape):
                experts(bench, shape, dtype)
    with bench.guarded("cross-entropy"):
        losses(bench)
    for kind, moe in (("dense", None), ("moe", MOE)):
        with bench.guarded("fp32 against CPU", model=kind):
            against_cpu(bench, kind, moe)
    for kind, moe in (("dense", None), ("moe", ALL)):
        with bench.guarded("bf16 against fp32", model=kind):
            bf16(bench, kind, moe)


def experts(bench: Bench, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Output and all gradients of the grouped back end, with and without kernels, against the loop in fp64."""
    tokens, top_k, n_experts, d, f = shape
    scores, chosen = bench.random(tokens, n_experts).topk(top_k)
    leaves = [
        bench.random(tokens, d, seed=1, dtype=dtype),
        bench.random(n_experts, 2 * f, d, seed=2, dtype=dtype, scale=d**-0.5),
        bench.random(n_experts, d, f, seed=3, dtype=dtype, scale=f**-0.5),
        scores.softmax(-1),
    ]
    slope = bench.random(tokens, d, seed=4, dtype=dtype)
    exact = _outputs("loop", [leaf.double() for leaf in leaves], chosen, slope.double())
    found = {"kernels": _outputs("grouped", leaves, chosen, slope)}
    again = _outputs("grouped", leaves, chosen, slope)
    same = all(torch.equal(a, b) for a, b in zip(found["kernels"], again, strict=True))
    with without_kernels():
        found["operators"] = _outputs("grouped", leaves, chosen, slope)
    for how, outputs in found.items():
        errors = {
            name: error(a, b)
            for name, a, b in zip(("y", "d_x", "d_first", "d_down", "d_gates"), outputs, exact, strict=True)
        }
        row = within(errors, LIMITS[dtype])
        row["ok"] = row["ok"] and same
        bench.emit("grouped against loop", shape=shape, dtype=str(dtype), how=how, repeats_equal=same, **row)


def _outputs(name: str, leaves: list[Tensor], chosen: Tensor, slope: Tensor) -> list[Tensor]:
    x, first, down, gates = (leaf.detach().clone().requires_grad_() for leaf in leaves)
    y = DISPATCHES[name](x, first, down, chosen, gates, "swiglu")
    return [y.detach(), *torch.autograd.grad(y, (x, first, down, gates), slope)]


def losses(bench: Bench) -> None:
    """Cross-entropy with z-loss and ignored targets, kernels and operators, against fp64."""
    n, d, vocab = bench.pick((3001, 264, 8200), (65, 16, 40))
    hidden, weight = bench.random(n, d), bench.random(vocab, d, seed=1, scale=2 * d**-0.5)
    targets = torch.randint(vocab, (n,), generator=torch.Generator().manual_seed(0)).to(bench.device)
    targets[::7] = IGNORED

    def gradients(hidden: Tensor, weight: Tensor) -> list[Tensor]:
        hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss, square = linear_cross_entropy(hidden, weight, targets)
        return [loss.detach(), *torch.autograd.grad(loss + 1e-3 * square, (hidden, weight))]

    for dtype in (torch.float32, torch.bfloat16):
        inputs = hidden.to(dtype), weight.to(dtype)
        exact = gradients(*(each.double() for each in inputs))
        found = {"kernels": gradients(*inputs)}
        with without_kernels():
            found["operators"] = gradients(*inputs)
        for how, values in found.items():
            errors = {
                name: error(a, b) for name, a, b in zip(("loss", "d_hidden", "d_weight"), values, exact, strict=True)
            }
            bench.emit("cross-entropy against fp64", dtype=str(dtype), how=how, **within(errors, LIMITS[dtype]))


def _model(bench: Bench, moe: dict[str, Any] | None, dispatch: str, large: bool) -> LanguageModel:
    sizes: dict[str, Any] = {"vocab_size": 512, "d_model": 64, "n_layers": 2, "n_heads": 4, "d_ff": 160}
    if large and not bench.dry:
        sizes = {"vocab_size": 8192, "d_model": 512, "n_layers": 4, "n_heads": 8, "d_ff": 1536}
        moe = moe and {**moe, "d_expert": 384}
    extra = {"qk_norm": "none"} if moe is None else {"qk_norm": "full", "moe": moe}
    config = ModelConfig.parse({**sizes, "tie_embeddings": False, **extra})
    return build_model(config, seed=0, dispatch=dispatch if moe else "loop").to(bench.device)


def _gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def against_cpu(bench: Bench, kind: str, moe: dict[str, Any] | None) -> None:
    """Every gradient in fp32, here and on the CPU."""
    for dispatch in ("loop", "padded") if moe else ("none",):
        model = _model(bench, moe, dispatch, large=False)
        tokens, targets = text(bench, 512, 4, 64)
        here = _gradients(model, model.loss(tokens, targets).total)
        model = model.cpu()
        there = _gradients(model, model.loss(tokens.cpu(), targets.cpu()).total)
        worst = max((error(here[name], there[name]), name) for name in there)
        row = within({"worst": worst[0]}, LIMITS[torch.float32])
        bench.emit("fp32 against CPU", model=kind, dispatch=dispatch, parameter=worst[1], **row)


def bf16(bench: Bench, kind: str, moe: dict[str, Any] | None) -> None:
    """Gradients under autocast against fp32 with the same weights, ours and transformers', medians over batches.

    Under autocast transformers' `grouped_mm` computes experts in fp32 where their weights are, its `eager` in bf16 as
    ours; `ok` is against the latter. `flipped` counts tokens whose experts are not fp32's, each a large error: none,
    where all experts are taken.
    """
    model = _model(bench, moe, "grouped", large=True)
    reference = _model(bench, moe, "loop", large=True)
    peer = peer_model(model.config).to(bench.device) if has("transformers") else None
    if peer is not None:
        peer.load_state_dict(peer_weights(model))
    choices = {id(each): _watch_choices(each) for each in (model, reference, peer) if each is not None}
    found: dict[str, list[dict[str, float]]] = {}
    for number in range(bench.pick(3, 2)):
        tokens, targets = text(bench, model.config.vocab_size, 4, bench.pick(512, 32), seed=number)
        exact = _gradients(reference, reference.loss(tokens, targets).loss)
        with bench.autocast():
            loss = model.loss(tokens, targets).loss
        rows = {"ours": (choices[id(model)][:], _gradients(model, loss))}
        for experts in PEERS[kind] if peer is not None else ():
            choices[id(peer)].clear()
            if moe:
                peer.set_experts_implementation(experts)
            with bench.autocast():
                logits = peer(input_ids=tokens).logits
                loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
            gradients = peer_weights(_gradients(peer, loss), back=True)
            rows[f"transformers {experts}".rstrip()] = (choices[id(peer)][:], gradients)
        for who, (routes, gradients) in rows.items():
            flipped = float(sum((a != b).any(-1).sum() for a, b in zip(routes, choices[id(reference)], strict=True)))
            found.setdefault(who, []).append({**_summary(gradients, exact), "flipped": flipped})
        for each in choices.values():
            each.clear()
    medians = {
        who: {name: statistics.median(row[name] for row in rows) for name in rows[0]} for who, rows in found.items()
    }
    fair = medians.get(f"transformers {PEERS[kind][0]}".rstrip())
    for who, row in medians.items():
        bench.emit("bf16 against fp32", model=kind, who=who, batches=len(found[who]), **row)
    if fair is not None:
        ratio = medians["ours"]["all"] / max(fair["all"], 1e-30)
        bench.emit("bf16 beside transformers", model=kind, **within({"ratio": ratio}, FARTHER))


def _watch_choices(model: Any) -> list[Tensor]:
    """The sorted choices of every router from now on, filled at each forward pass."""
    found: list[Tensor] = []

    def note(module: Any, inputs: Any, output: Any) -> None:
        chosen = output.chosen if isinstance(output, Routing) else output[2]
        found.append(chosen.detach().sort(-1).values)

    for name, module in model.named_modules():
        if name.endswith(("mlp.router", "mlp.gate")):
            module.register_forward_hook(note)
    return found


def _summary(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    errors = sorted(error(found[name], exact[name]) for name in exact)
    whole = torch.cat([exact[name].flatten() for name in exact])
    return {
        "all": error(torch.cat([found[name].flatten() for name in exact]), whole),
        "median": errors[len(errors) // 2],
        "worst": errors[-1],
        "head": error(found["lm_head.weight"], exact["lm_head.weight"]),
    }


def peer_weights(weights: Any, back: bool = False) -> dict[str, Tensor]:
    """Our names as transformers', or the way `back`: there gate and up are apart, and the router is `gate`."""
    state = weights if isinstance(weights, dict) else weights.state_dict()
    if back:
        joined = {}
        for name, value in state.items():
            if name.endswith("mlp.gate_proj.weight"):
                up = state[name.replace("gate_proj", "up_proj")]
                joined[name.replace("gate_proj", "gate_up_proj")] = torch.cat((value, up))
            elif not name.endswith("mlp.up_proj.weight"):
                joined[name.replace("mlp.gate.weight", "mlp.router.weight")] = value
        return joined
    apart = {}
    for name, value in state.items():
        if name.endswith("mlp.gate_up_proj.weight"):
            gate, up = value.chunk(2)
            apart |= {name.replace("gate_up_proj", "gate_proj"): gate, name.replace("gate_up_proj", "up_proj"): up}
        else:
            apart[name.replace("mlp.router.weight", "mlp.gate.weight")] = value
    return apart
