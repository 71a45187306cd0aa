"""The leak certificate: change one token and measure which earlier tokens and which other sequences notice.

A causal language model's output at a position must depend on that position and those before it in the same sequence.
Expert Choice, capacity drops and mixing break that; the certificate measures how much, in fp64 on the reference
path, so that zero means below 1e-9 and rounding cannot pass for a leak. A random batch may overflow no expert, so a
batch of one token repeated, which overflows any that can, is tried as well.
"""

from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.model import LanguageModel, MoELayer, build_model, leak_free, leaks
from moelab.notebook import Shown

ZERO = 1e-9
"""Changes of a logit below this count as none."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Rates over (changed token, observed position) pairs, and the largest changes of an output.

    `earlier` looks at the positions before the changed token in its sequence, `others` at all positions of the other
    sequences.
    """

    earlier_rate: float
    others_rate: float
    earlier_change: float
    others_change: float

    @classmethod
    def of(cls, changes: list[tuple[Tensor, Tensor]]) -> Self:
        """From the largest change of an output at every earlier position and at every position of other sequences."""
        earlier, others = (torch.cat([change[side] for change in changes]) for side in (0, 1))
        return cls(
            earlier_rate=float((earlier > ZERO).double().mean()),
            others_rate=float((others > ZERO).double().mean()),
            earlier_change=float(earlier.max()),
            others_change=float(others.max()),
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class LeakCertificate(Leak, Shown):
    """The leak of the logits when a token changes, and of each kind of layer alone when its input does.

    The rates are those of a random batch, `crowded` those of a batch of one token repeated; the kinds saw both.
    `leak_free_change` is the largest change of a logit with capacity lifted and mixing off, which must be zero for
    every router. `kinds` names attention, the dense feed-forward, and the MoE layer with its router. `can_leak` is what
    follows from the architecture alone.
    """

    crowded: Leak
    leak_free_change: float
    trials: int
    can_leak: bool
    kinds: dict[str, Leak]

    @property
    def seen(self) -> bool:
        """Whether something leaked."""
        measured = (self, self.crowded, *self.kinds.values())
        return any(max(leak.earlier_change, leak.others_change) >= ZERO for leak in measured)

    @property
    def clean(self) -> bool:
        """Whether nothing leaked and nothing can."""
        return not self.seen and not self.can_leak


@torch.no_grad()
def certify(
    model: LanguageModel | ModelConfig, *, batch: int = 8, seq_len: int = 16, trials: int = 16, seed: int = 0
) -> LeakCertificate:
    """Change `trials` random tokens of a random batch, one at a time, and compare all logits; so for a crowded batch.

    A config is built with fresh weights from `seed`. Raises InputError for fewer than two sequences or positions.
    """
    if batch < 2 or seq_len < 2 or trials < 1:
        raise InputError("leaks: batch and seq_len must be at least 2 and trials at least 1")
    reference = _reference(model, seed)
    vocab_size = reference.config.vocab_size
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, vocab_size, (batch, seq_len), generator=generator)
    places = torch.randint(0, batch * (seq_len - 1), (trials,), generator=generator).tolist()
    # The first position has none before it: changed tokens stand at positions 1 and later.
    pairs = [(place // (seq_len - 1), place % (seq_len - 1) + 1) for place in places]
    crowd = tokens[:1, :1].expand(batch, seq_len)
    # The first row always finds room: every second change stands there and may make room for another token.
    crowd_pairs = [(row if trial % 2 else 0, position) for trial, (row, position) in enumerate(pairs)]
    as_trained = _changes(reference, tokens, pairs)
    crowded = _changes(reference, crowd, crowd_pairs, growing=True)
    alone = as_trained[:4] + crowded[:4]
    moe = reference.config.moe
    if moe is not None and (moe.traits.grouped or moe.capacity_factor):
        with leak_free(reference):
            alone = [change for each in (tokens, crowd) for change in _changes(reference, each, pairs[:4])]
    return LeakCertificate(
        **asdict(Leak.of(as_trained)),
        crowded=Leak.of(crowded),
        leak_free_change=max(float(torch.cat(change).max()) for change in alone),
        trials=trials,
        can_leak=leaks(reference.config),
        kinds=_by_kind(reference, [(tokens, pairs), (crowd, crowd_pairs)], generator),
    )


def _reference(model: LanguageModel | ModelConfig, seed: int) -> LanguageModel:
    """The same weights in fp64 with the reference dispatch; the model that was passed in stays as it is."""
    config = model if isinstance(model, ModelConfig) else model.config
    reference = build_model(config, seed=seed, dispatch="loop")
    if isinstance(model, LanguageModel):
        reference.load_state_dict(model.state_dict())
    return reference.double().eval()


def _changes(
    model: LanguageModel, tokens: Tensor, pairs: list[tuple[int, int]], growing: bool = False
) -> list[tuple[Tensor, Tensor]]:
    """For each changed token, the largest change of a logit at every earlier position, and at all of other sequences.

    A token changes by 1, or by 1, 2, 3 and so on where the change grows.
    """
    before, found = model(tokens), []
    for trial, (row, position) in enumerate(pairs):
        changed = tokens.clone()
        changed[row, position] = (changed[row, position] + (trial + 1 if growing else 1)) % model.config.vocab_size
        found.append(_sides((before - model(changed)).abs().amax(-1), row, position))
    return found


def _sides(difference_BT: Tensor, row: int, position: int) -> tuple[Tensor, Tensor]:
    others = torch.cat((difference_BT[:row], difference_BT[row + 1 :])).flatten()
    return difference_BT[row, :position], others


def _by_kind(
    model: LanguageModel, batches: list[tuple[Tensor, list[tuple[int, int]]]], generator: torch.Generator
) -> dict[str, Leak]:
    """Every kind of layer by itself: one token's vector in its input is replaced by noise."""
    changes: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for tokens, pairs in batches:
        for name, module, (x, *rest), options in _calls(model, tokens):
            before = _first(module(x, *rest, **options))
            for row, position in pairs:
                changed = x.clone()
                changed[row, position] = torch.randn(x.shape[-1], generator=generator, dtype=x.dtype)
                after = _first(module(changed, *rest, **options))
                changes.setdefault(name, []).append(_sides((before - after).abs().amax(-1), row, position))
    return {name: Leak.of(found) for name, found in changes.items()}


def _calls(model: LanguageModel, tokens: Tensor) -> list[tuple[str, nn.Module, tuple[Any, ...], dict[str, Any]]]:
    """Each layer's attention and feed-forward, by kind, with what they are called with in a forward pass."""
    found: list[tuple[str, nn.Module, tuple[Any, ...], dict[str, Any]]] = []

    def listener(kind: str) -> Any:
        return lambda module, inputs, options: found.append((kind, module, inputs, options))

    handles = []
    layers: Any = model.model.layers
    for layer in layers:
        routed = isinstance(layer.mlp, MoELayer)
        feed_forward = f"MoE, {layer.mlp.router.config.router}" if routed else "dense feed-forward"
        parts: dict[str, Any] = {"attention": layer.self_attn, feed_forward: layer.mlp}
        for kind, module in parts.items():
            handles.append(module.register_forward_pre_hook(listener(kind), with_kwargs=True))
    model(tokens)
    for handle in handles:
        handle.remove()
    return found


def _first(output: Any) -> Tensor:
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result
