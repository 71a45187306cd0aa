"""The decoder-only language model: embeddings, layers, head; its loss keeps auxiliary terms apart.

Parameter names follow Hugging Face (`model.layers.0.self_attn.q_proj.weight`), except that gate and up projections
are one matrix and the router is called `router`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.model.cache import KVCache
from moelab.model.cross_entropy import linear_cross_entropy
from moelab.model.decoder import Decoder
from moelab.model.hash_router import TokenContext, word_keys
from moelab.model.head import Head
from moelab.model.linear import PlainLinear
from moelab.model.masks import Positions, layer_contexts
from moelab.model.moe import MoELayer, RoutingOutput, leak_free, leaks
from moelab.model.multi_token import MTP_LOSS, Further, MultiTokenPrediction, further_loss
from moelab.model.router import TopKRouter, balance_from
from moelab.model.routing_record import RoutingRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """`loss` is the language-model cross-entropy alone, fp32 nats per token; `total` is what training minimises.

    `auxiliary` holds the weighted terms by name, summed over layers: `balance`, `router_z`, `logit_z`, `mtp`.
    `routing` has one record per MoE layer when it was asked for.
    """

    loss: Tensor
    total: Tensor
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    routing: list[RoutingRecord] = field(default_factory=list)


class LanguageModel(nn.Module):
    """model(tokens) -> logits; model.loss(tokens, targets) -> LossOutput. Build it with `build_model`.

    `word_parts` (V,), where experts go by words, holds how tokens join: bit 1 where they begin with a letter or digit,
    bit 2 where they end with one (`fill_routing_tables`).
    """

    word_parts: Tensor

    def __init__(self, config: ModelConfig, dispatch: str = "loop") -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config, dispatch)
        self.mtp = MultiTokenPrediction(config, dispatch)
        if not config.tie_embeddings:
            self.lm_head = PlainLinear(config.d_model, config.vocab_size, bias=bool(config.head_bias))
        elif config.head_bias:
            self.lm_head_bias = nn.Parameter(torch.empty(config.vocab_size))
        moe = config.moe
        self.routes_by_words = moe is not None and moe.router == "word" and moe.routing_vocab is not None
        if self.routes_by_words:
            self.register_buffer("word_parts", torch.zeros(config.vocab_size, dtype=torch.uint8))

    @property
    def head_weight(self) -> Tensor:
        """The output head (V, D): the embedding itself where they are tied."""
        return self.model.embed_tokens.weight if self.config.tie_embeddings else self.lm_head.weight

    @property
    def head(self) -> Head:
        """How logits follow from final states: weight, bias and cap."""
        bias = None
        if self.config.head_bias:
            bias = self.lm_head_bias if self.config.tie_embeddings else self.lm_head.bias
        return Head(self.head_weight, bias, self.config.logit_softcap)

    def hidden(
        self,
        tokens: Tensor,
        *,
        cache: KVCache | None = None,
        mask: Tensor | None = None,
        mixing: bool = False,
        **routing: Any,
    ) -> tuple[Tensor, list[RoutingOutput]]:
        """Final normalised states (B, T, D) of tokens (B, T), and one RoutingOutput per MoE layer.

        `mask` (B, T), True for real tokens, keeps padding out of attention and of the routing statistics; with a
        cache it covers the stored tokens too. A cache makes routing leak-free, unless `mixing` keeps groups across
        the sequences of the batch as in training. `losses` and `record` ask the MoE layers for auxiliary losses and
        for records.
        """
        if cache is not None and not mixing and not self._leak_free_already():
            with leak_free(self):
                return self.hidden(tokens, cache=cache, mask=mask, **routing)
        start = cache.length if cache is not None else 0
        length = tokens.shape[1]
        positions = Positions(start, length, mask, tokens.device)
        token_mask = None if mask is None else mask[:, start:]
        x = self._embed(tokens)
        context = self._context(tokens, cache, mask)
        outputs = []
        for index, attention in enumerate(layer_contexts(self.config, positions, cache)):
            layer, stored = self.model.layers[index], None if cache is None else cache.layers[index]
            x, output = layer(x, attention, stored, mask_BT=token_mask, context=context, **routing)
            if output is not None:
                outputs.append(output)
        return self.model.norm(x), outputs

    def _embed(self, tokens: Tensor) -> Tensor:
        """Raises InputError for an id beyond the vocabulary (on the CPU; a GPU reports it later, and in its words)."""
        try:
            x: Tensor = self.model.embed_tokens(tokens)
        except IndexError:
            low, high = (int(bound) for bound in tokens.aminmax())
            size = self.config.vocab_size
            raise InputError(f"tokens: must be 0 to {size - 1}, got {high if high >= size else low}") from None
        return x * self.config.embedding_scale if self.config.embedding_scale else x

    def _leak_free_already(self) -> bool:
        """A cache holds single tokens: routers that work on groups have to choose token by token."""
        return not leaks(self.config) or all(m.leak_free for m in self.modules() if isinstance(m, MoELayer))

    def _context(self, tokens: Tensor, cache: KVCache | None, mask: Tensor | None) -> TokenContext | None:
        """Token ids, those before them and positions, for routers that route by them; padding is not there."""
        moe = self.config.moe
        if moe is None or (moe.traits.learned and not moe.hash_layers):
            return None
        start = cache.length if cache is not None else 0
        earlier = torch.full_like(tokens[:, :1], -1)
        if cache is not None:
            earlier = earlier if cache.last is None else cache.last
            cache.last = tokens[:, -1:] if mask is None else torch.where(mask[:, -1:], tokens[:, -1:], -1)
        shown = tokens if mask is None else torch.where(mask[:, start:], tokens, -1)
        previous = torch.cat((earlier, shown[:, :-1]), 1)
        if mask is None:
            positions = torch.arange(start, start + tokens.shape[1], device=tokens.device).expand_as(tokens)
        else:
            positions = (mask.long().cumsum(1) - 1).clamp(min=0)[:, start:]
        words = None
        if self.routes_by_words:
            words, after = word_keys(tokens, self.begins_word(tokens, previous), None if cache is None else cache.word)
            if cache is not None:
                cache.word = after
        return TokenContext(ids=tokens, previous=previous, positions=positions, words=words)

    def begins_word(self, ids: Tensor, previous: Tensor) -> Tensor:
        """Whether tokens begin a word: they, or the tokens before them, do not join with a letter or digit."""
        joins = self.word_parts[ids] & 1 == 1
        after = (self.word_parts[previous.clamp(min=0)] & 2 == 2) & (previous >= 0)
        return ~(joins & after)

    def _further(self, x: Tensor, tokens: Tensor, mask: Tensor | None, losses: str) -> Further:
        """What multi-token prediction makes of the final states x (B, T, D) of these tokens; empty without it."""
        if not len(self.mtp):
            return []
        further: Further = self.mtp(x, self._embed(tokens), mask, self._context(tokens, None, mask), losses=losses)
        return further

    def update_routers(self) -> None:
        """After an optimiser step: let loss-free balancing move its biases. Does nothing for other routers."""
        if self.config.moe is None or not self.config.moe.bias_update:
            return
        for module in self.modules():
            if isinstance(module, TopKRouter):
                module.update_bias()

    def forward(self, tokens: Tensor, *, cache: KVCache | None = None, mask: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of tokens (B, T)."""
        hidden, _ = self.hidden(tokens, cache=cache, mask=mask)
        return self.head.logits(hidden)

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        *,
        reduction: str = "mean",
        logit_z_loss: float = 0.0,
        mtp_loss: float | None = None,
        mask: Tensor | None = None,
        collect_routing: bool = False,
        balance_over: str = "batch",
        whole_counts: Callable[[Tensor], Tensor] | None = None,
    ) -> LossOutput:
        """Cross-entropy of targets (B, T), -100 ignored, with the auxiliary losses apart.

        The balance loss is formed over the `batch` or each `sequence`. Where these tokens are only a part of a batch,
        `whole_counts` turns their choices (layers, E) into those of all: then the parts' gradients average to the
        gradient of one balance loss over the whole batch.

        Multi-token prediction takes part with the weight `mtp_loss`; None: `MTP_LOSS`.

        `reduction` is `mean`, `sum` or `none` (a loss per token, (B, T), without auxiliary terms).
        Raises InputError for any other.
        """
        training = reduction != "none"
        x, outputs = self.hidden(tokens, mask=mask, losses=balance_over if training else None, record=collect_routing)
        loss, z = linear_cross_entropy(x.flatten(0, 1), self.head, targets.flatten(), reduction=reduction)
        routing = [output.record for output in outputs if output.record is not None]
        if not training:
            loss = loss.view_as(targets)
            return LossOutput(loss=loss, total=loss, routing=routing)
        further = self._further(x, tokens, mask, balance_over)
        auxiliary = self._auxiliary([*outputs, *_outputs(further)], whole_counts)
        if logit_z_loss:
            auxiliary["logit_z"] = logit_z_loss * z
        if further:
            weight = MTP_LOSS if mtp_loss is None else mtp_loss
            auxiliary["mtp"] = weight * further_loss(further, self.head, targets, reduction, mask)
        total = loss
        for term in auxiliary.values():
            total = total + term
        return LossOutput(loss=loss, total=total, auxiliary=auxiliary, routing=routing)

    def balance_counts(self, tokens: Tensor) -> Tensor:
        """How many choices each expert of each MoE layer gets from tokens (B, T), (layers, E); no gradient, no head."""
        with torch.no_grad():
            x, outputs = self.hidden(tokens, losses="batch")
            outputs = [*outputs, *_outputs(self._further(x, tokens, None, "batch"))]
        return torch.stack([output.balance.counts[0] for output in outputs if output.balance is not None])

    def _auxiliary(
        self, outputs: list[RoutingOutput], whole_counts: Callable[[Tensor], Tensor] | None
    ) -> dict[str, Tensor]:
        moe = self.config.moe
        if moe is None:
            return {}
        balance = [output.balance for output in outputs if output.balance is not None]
        router_z = [output.router_z for output in outputs if output.router_z is not None]
        terms = {}
        if balance:
            counts = torch.stack([term.counts for term in balance])
            if whole_counts is not None:
                counts = whole_counts(counts[:, 0])[:, None]
            each = balance_from(torch.stack([term.probabilities for term in balance]), counts)
            terms["balance"] = moe.balance_loss * each.mean(1).sum()
        if router_z:
            terms["router_z"] = moe.z_loss * torch.stack(router_z).sum()
        return terms


def _outputs(further: Further) -> list[RoutingOutput]:
    """Those of the MoE layers among the modules of multi-token prediction."""
    return [output for _, output in further if output is not None]
