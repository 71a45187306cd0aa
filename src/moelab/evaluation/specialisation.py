"""What the experts of a trained model do: which tokens, kinds of token and sources each takes, and which work together.

Everything is counted on held-out text, as trained. A use is a token's share of one of its choices: a token that takes
K experts gives 1/K to each; where experts mix tokens, a token gives each expert its share of the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moelab.data import Dataset
from moelab.data.classes import CLASSES, token_classes, token_texts
from moelab.errors import InputError
from moelab.evaluation.expert_statistics import Array, co_activation, entropies, known_from, lift, typical
from moelab.evaluation.loss import validation_batches
from moelab.model import LanguageModel, MoELayer
from moelab.model.group_routing import GroupRouter, GroupRouting, ungroup_tokens
from moelab.model.router import Routing
from moelab.notebook import Shown

_ROWS = 16


@dataclass(frozen=True, kw_only=True, repr=False)
class LayerUse(Shown):
    """One MoE layer: uses by token id (V, E) and by source (S, E), and how often two experts took one token (E, E).

    `own_entropy` is the mean entropy (nats) of one token's uses, ln K where it takes K experts: no look-up can know
    which of them a use is.
    """

    layer: int
    by_token: Array
    by_source: Array
    together: Array
    own_entropy: float

    @property
    def load(self) -> Array:
        """Each expert's share of all uses, (E,)."""
        return self.by_source.sum(0) / self.by_source.sum()


@dataclass(frozen=True, kw_only=True, repr=False)
class Specialisation(Shown):
    """What `measure` found. `texts` spell the tokens; `classes` (V,) index CLASSES."""

    tokens: int
    texts: list[str]
    classes: NDArray[np.int64]
    sources: list[str]
    layers: list[LayerUse]

    def by_class(self, layer: LayerUse) -> Array:
        """Uses by class of token, (C, E)."""
        return np.stack([layer.by_token[self.classes == index].sum(0) for index in range(len(CLASSES))])

    def to_dict(self, top: int = 8) -> dict[str, Any]:
        """Plain data: per layer its measures, lifts by class and source, co-activation, and the experts."""
        return {"tokens": self.tokens, "layers": [self._layer(layer, top) for layer in self.layers]}

    def _layer(self, layer: LayerUse, top: int) -> dict[str, Any]:
        classes = self.by_class(layer)
        relative = layer.load * len(layer.load)
        return {
            "layer": layer.layer,
            "load": layer.load.tolist(),
            "max_violation": float(relative.max() - 1),
            "load_cv": float(relative.std()),
            "dead_experts": int((layer.load == 0).sum()),
            "known_from_token": known_from(layer.by_token, layer.own_entropy),
            "known_from_class": known_from(classes, layer.own_entropy),
            "known_from_source": known_from(layer.by_source, layer.own_entropy),
            "lift_by_class": _named(CLASSES, classes),
            "lift_by_source": _named(self.sources, layer.by_source),
            "co_activation": co_activation(layer.together).tolist(),
            "experts": [self.expert(layer, expert, top) for expert in range(len(layer.load))],
        }

    def expert(self, layer: LayerUse, expert: int, top: int = 8) -> dict[str, Any]:
        """One expert: its load, most typical tokens, classes and sources, and who joins it more than at random."""
        lifts = np.nan_to_num(co_activation(layer.together)[expert])
        partner = int(lifts.argmax()) if lifts.max() > 1 + 1e-6 else None
        return {
            "load": float(layer.load[expert]),
            "tokens": [
                {"text": self.texts[token], "share": share, "lift": lift}
                for token, share, lift in typical(layer.by_token, expert, top)
            ],
            "classes": [
                {"class": CLASSES[i], "share": share, "lift": lift}
                for i, share, lift in typical(self.by_class(layer), expert, 2)
            ],
            "sources": [
                {"source": self.sources[i], "share": share, "lift": lift}
                for i, share, lift in typical(layer.by_source, expert, 2)
            ],
            "partner": None if partner is None else {"expert": partner, "lift": float(lifts[partner])},
        }


@torch.no_grad()
def measure(
    model: LanguageModel,
    dataset: Dataset,
    *,
    seq_len: int,
    max_tokens: int,
    trained_rows: int | None = None,
    device: str = "cpu",
) -> Specialisation:
    """Count who takes what on held-out text, in batches of about 16 sequences (see `validation_batches`).

    Raises InputError for a dense model.
    """
    layers = {index: layer.mlp for index, layer in enumerate(model.model.layers) if isinstance(layer.mlp, MoELayer)}
    if not layers or model.config.moe is None:
        raise InputError("routing: this model is dense, it has no experts")
    batches = validation_batches(
        dataset, model.config, seq_len=seq_len, trained_rows=trained_rows or _ROWS, max_tokens=max_tokens, rows=_ROWS
    )
    n_experts, n_sources = model.config.moe.n_experts, len(batches.sources)
    counts = {
        index: [np.zeros((size, n_experts)) for size in (dataset.vocab_size, n_sources, n_experts)] for index in layers
    }
    own = dict.fromkeys(layers, 0.0)
    model.eval()
    with _listening(layers) as noted:
        for batch in batches:
            model.hidden(torch.from_numpy(batch.inputs).to(device))
            ids, sources = batch.inputs.ravel(), np.repeat(batch.source, seq_len)
            for index, uses_TE in noted.items():
                uses = uses_TE.double().cpu().numpy()
                by_token, by_source, together = counts[index]
                np.add.at(by_token, ids, uses)
                np.add.at(by_source, sources, uses)
                took = (uses > 0).astype(np.float64)
                together += took.T @ took
                own[index] += entropies(uses)
    return Specialisation(
        tokens=batches.tokens,
        texts=token_texts(dataset),
        classes=token_classes(dataset),
        sources=list(batches.sources),
        layers=[
            LayerUse(layer=i, by_token=c[0], by_source=c[1], together=c[2], own_entropy=own[i] / c[1].sum())
            for i, c in counts.items()
        ],
    )


@contextmanager
def _listening(layers: dict[int, MoELayer]) -> Iterator[dict[int, Tensor]]:
    """Within this block every forward pass leaves each layer's uses (T, E) in the dictionary."""
    noted: dict[int, Tensor] = {}

    def listener(index: int, n_experts: int) -> Any:
        def listen(router: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            noted[index] = _uses(router, inputs, output, n_experts)

        return listen

    handles = [
        layer.router.register_forward_hook(listener(index, layer.config.n_experts)) for index, layer in layers.items()
    ]
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


def _uses(router: nn.Module, inputs: tuple[Any, ...], output: Any, n_experts: int) -> Tensor:
    """Shares (T, E) that sum to 1 for every token that some expert reads."""
    if isinstance(output, Routing):
        chosen = output.chosen
        shares = torch.zeros(len(chosen), n_experts, device=chosen.device)
        return shares.scatter_add_(1, chosen, torch.full_like(chosen, 1, dtype=shares.dtype) / chosen.shape[1])
    grouped: GroupRouting = output[1]
    assert isinstance(router, GroupRouter)
    weights = grouped.weights.float().sum(-1)
    if grouped.scores is not None:  # Expert Choice: taken or not
        weights = (weights > 0).float()
    weights = ungroup_tokens(weights, inputs[0][..., :1].expand(-1, -1, n_experts), router.grouping).flatten(0, 1)
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-30)


def _named(names: Any, uses: Array) -> dict[str, list[float]]:
    return {name: row.tolist() for name, row in zip(names, lift(uses), strict=True) if np.isfinite(row).any()}
