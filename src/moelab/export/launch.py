"""The numbers that every launcher of a planned run needs: batch, steps, rates and layout."""

import math
from dataclasses import dataclass

from moelab.architecture import ModelConfig
from moelab.architecture.layout import Layout
from moelab.planning import Plan
from moelab.runs.train_config import TrainConfig

EMBEDDING_STD = 0.02
"""Of the initial embeddings and output head of a run config (`moelab.model.initialize`, which a test compares)."""
LEAST_EVALUATED = 100_000
"""Tokens of an evaluation in the run config, unless one sequence is longer."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One planned run. `batch` and `micro_batch` count sequences, `micro_batch` on each data-parallel device.

    `layout` is None where the plan has no predicted layout; then all devices are data parallel and `recompute` is None.
    `unique_tokens` is None where no token is repeated. `rule` names the rule of the learning rate.
    """

    model: ModelConfig
    train: TrainConfig
    batch: int
    micro_batch: int
    layout: Layout | None
    recompute: str | None
    precision: str
    unique_tokens: int | None
    rule: str


def launch_of(plan: Plan) -> Launch:
    """The recommended design of a plan as one run.

    The batch is that of the preferred rule, rounded to whole sequences for every data-parallel device; with several
    pieces of the pipeline a device, its micro-batches are a multiple of the stages, as interleaved schedules need.
    """
    best, seq_len = plan.best, plan.space.seq_len
    known = best.training if best.training and best.training["predicted"] else None
    layout = Layout.read(known["layout"]) if known else None
    micro = known["micro_batch"] if known else 1
    step = micro * layout.dp * (layout.pp if layout.vp > 1 else 1) if layout else 1
    batch = max(1, min(round(best.batch_tokens / seq_len / step), best.tokens // (seq_len * step))) * step
    if batch * seq_len > best.tokens:
        batch, micro, layout, known = max(1, best.tokens // seq_len), 1, None, None
    train = TrainConfig(
        tokens=max(best.tokens, batch * seq_len),
        seq_len=seq_len,
        batch_tokens=batch * seq_len,
        micro_batch=micro,
        learning_rate=best.learning_rate,
        eval_tokens=max(LEAST_EVALUATED, seq_len),
        evaluations=1 if best.tokens < 4 * batch * seq_len else 4,
    )
    return Launch(
        model=best.config,
        train=train,
        batch=batch,
        micro_batch=micro,
        layout=layout,
        recompute=known["recompute"] if known else None,
        precision=plan.budget.train_precision or "bf16",
        unique_tokens=best.unique_tokens if best.epochs > 1.001 else None,
        rule=best.rates[0].title if best.rates else "",
    )


def pieces(n_layers: int, stages: int) -> list[int]:
    """Layers of each pipeline stage, as even as possible; stages in the middle take the extra ones."""
    least, extra = divmod(n_layers, stages)
    first = math.ceil((stages - extra) / 2)
    return [least + (first <= stage < first + extra) for stage in range(stages)]


def stages_text(model: ModelConfig, stages: int) -> str:
    """`Etttt|tttt|...|tttmL`: embedding, layers, multi-token prediction and loss by pipeline stage."""
    parts = ["t" * layers for layers in pieces(model.n_layers, stages)]
    parts[0] = "E" + parts[0]
    parts[-1] += "m" * (model.mtp_layers or 0) + "L"
    return "|".join(parts)
