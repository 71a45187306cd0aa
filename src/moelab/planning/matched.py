"""The designs that a comparison sets side by side: given ones with the tokens that the compute buys, or a MoE model
with its dense baseline and its two schemes of data reuse (arXiv 2506.12119)."""

from collections.abc import Sequence
from pathlib import Path

from moelab.architecture import ModelConfig, count_flops, load_model
from moelab.architecture.presets import DESCRIBES
from moelab.errors import InputError
from moelab.planning.baselines import Part, equal_pair
from moelab.planning.candidate import Candidate
from moelab.planning.equal_loss import equal_loss_dense
from moelab.planning.predictors import Predictor
from moelab.quantities import format_number
from moelab.runs import RunConfig
from moelab.runs.find import find_design

STRICT = ("strict reuse", "dense baseline")
"""The two that saw the same distinct tokens, of a design and what is derived from it."""
_TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".gz")


COMPARES_LAWS = "laws are compared by moelab.compare_laws(table, laws)"


def named_model(design: object, number: int) -> tuple[str, ModelConfig]:
    """A name for people and the model. Raises InputError for what is no design, naming what compares laws."""
    if isinstance(design, str | Path) and not _holds_runs(design):
        return str(design), load_model(find_design(design))
    if isinstance(design, ModelConfig):
        return f"design {number}", design
    if isinstance(design, RunConfig):
        return design.name or f"design {number}", design.final_model
    if isinstance(design, Candidate):
        return design.label, design.config
    what = str(design) if isinstance(design, str | Path) else type(design).__name__
    raise InputError(
        f"compare: compares designs (a ModelConfig, a YAML, a run or a preset), got {what}; " + COMPARES_LAWS
    )


def _holds_runs(design: str | Path) -> bool:
    """Whether this is a table of runs or a folder of them."""
    path = Path(design)
    return path.suffix.lower() in _TABLES or (path.is_dir() and not any((path / name).exists() for name in DESCRIBES))


def given_parts(
    models: Sequence[tuple[str, ModelConfig]], flops: float, seq_len: int, unique: int | None, causal: bool = False
) -> list[tuple[str, Part]]:
    """Each model with the tokens that the compute buys, at most `unique` of them distinct."""
    parts: list[tuple[str, Part]] = []
    for name, model in models:
        tokens = round(flops / count_flops(model, seq_len, causal=causal).train)
        if tokens < seq_len:
            raise InputError(f"flops: {format_number(flops)} do not train {name} on one sequence of {seq_len:,} tokens")
        parts.append((name, (model, tokens, min(unique or tokens, tokens))))
    return parts


def equal_loss_parts(
    models: Sequence[tuple[str, ModelConfig]],
    flops: float,
    seq_len: int,
    unique: int | None,
    predictors: Sequence[Predictor],
    causal: bool = False,
) -> tuple[list[tuple[str, Part]], dict[str, float]]:
    """One MoE model with the tokens that the compute buys, and the dense model that reaches its loss on them; the size
    of that one by law. Raises InputError for a dense model, or several."""
    if len(models) > 1 or models[0][1].moe is None:
        raise InputError("equal loss: goes with one MoE design, which the dense model of its loss is set beside")
    parts = given_parts(models, flops, seq_len, unique, causal)
    dense, sizes = equal_loss_dense(parts[0][1], seq_len, predictors)
    return [*parts, ("dense of equal loss", (dense, *parts[0][1][1:]))], sizes


def derived_parts(
    name: str, model: ModelConfig, flops: float, seq_len: int, unique: int | None, strict: bool, causal: bool = False
) -> list[tuple[str, Part]]:
    """A MoE model on new tokens, with strict and with loose reuse, and its dense baseline; with `strict`, the two that
    saw the same distinct tokens. Raises InputError for a dense model."""
    if model.moe is None:
        raise InputError(f"compare: {name} is dense; give a second design to compare it with")
    dense, reused = equal_pair(model, flops, seq_len, "strict", causal=causal)
    _, loose = equal_pair(model, flops, seq_len, "loose", dense[0], causal=causal)
    new = (reused[0], reused[1], reused[1])
    parts = [(name, new), (STRICT[0], reused), ("loose reuse", loose), (STRICT[1], dense)]
    if strict:
        parts = [part for part in parts if part[0] in STRICT]
    if unique is None:
        return parts
    return [(label, (config, tokens, min(distinct, unique))) for label, (config, tokens, distinct) in parts]
