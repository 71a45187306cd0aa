"""The tables that moelab2026's prior is made from, in one set of columns: public runs, published laws on a grid, ours.

Tables that must not ship contribute numbers derived from them only. Every table has a group: the sources that fall
together when one of them is under test (a paper's runs, its routers, its printed coefficients).
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from moelab.fitting.hierarchy import Table
from moelab.fitting.observations import observations
from moelab.laws import get_law
from moelab.laws.clark2022 import TOKENS

LAW = get_law("moelab2026")
ROUTERS = ("S-Base", "RL-R", "Hash")
LARGEST = 1e9
"""Clark's runs above this many parameters were seen while the law was found: no prior and no score uses them."""
OURS_ALONE = ("sigma_1", "sigma_2", "rho")
"""What our runs of 25 to 750 thousand active parameters inform: shared experts, and repeated data with experts, which
no other table has. What experts are worth is written at 1e8 parameters, three decades above (docs/log.md)."""
Columns = dict[str, np.ndarray]


def clark(folder: Path) -> pl.DataFrame:
    """Clark's runs (arXiv 2202.01169) in our columns; N without embeddings, experts by width of all layers."""
    rows = pl.read_csv(folder / "clark2022" / "final_losses.csv")
    experts, chosen = pl.col("num_experts"), pl.col("k")
    dense = pl.col("router_type") == "Dense"
    one = (pl.col("total_parameter_count") - pl.col("dense_parameter_count")) / (experts - 1)
    active = (
        pl.when(dense)
        .then(pl.col("total_parameter_count"))
        .otherwise(pl.col("dense_parameter_count") + (chosen - 1) * pl.when(experts > 1).then(one).otherwise(0))
    )
    share = pl.col("routing_frequency")
    width = (1 - share + share * experts) / (1 - share + share * chosen)
    standard = (share == 0.5) & (chosen == 1)
    return rows.with_columns(
        params_active=active,
        params_active_non_embedding=active,
        params_total=pl.col("total_parameter_count"),
        tokens=pl.lit(TOKENS),
        n_experts=experts.cast(pl.Float64),
        top_k=pl.when(dense).then(1).otherwise(chosen),
        expert_ratio=pl.when(dense).then(1.0).when(standard).then(experts).otherwise(width),
        train_flops=3 * pl.col("flops_per_step") * 250_000,
        loss=pl.col("loss_validation"),
    )  # fmt: skip


COLUMNS = (
    "params_active", "params_active_non_embedding", "params_total", "tokens", "n_experts", "top_k", "expert_ratio",
    "train_flops", "loss",
)  # fmt: skip


def clark_tables(folder: Path) -> dict[str, pl.DataFrame]:
    """One table per router (with the dense runs), as the paper fits them, and one of the other k and frequencies."""
    rows = clark(folder)
    usual = (pl.col("routing_frequency") == 0.5) & (pl.col("k") == 1) & (pl.col("seed") == 42)
    dense = pl.col("router_type") == "Dense"
    found = {
        f"clark2022 {router}": rows.filter(usual & ((pl.col("router_type") == router) | dense)) for router in ROUTERS
    }
    found["clark2022 other k and frequencies"] = rows.filter(~usual & (pl.col("seed") == 42))
    return {name: table.select(COLUMNS) for name, table in found.items()}


def muennighoff(folder: Path) -> pl.DataFrame:
    """Muennighoff's 182 runs (arXiv 2305.16264): dense, with repeated data."""
    rows = pl.read_csv(folder / "muennighoff2023" / "runs_fitset_182.csv")
    return rows.select(
        params_total=pl.col("params"),
        params_active=pl.col("params"),
        tokens=pl.col("tokens"),
        unique_tokens=pl.min_horizontal("unique_tokens", "tokens"),
        train_flops=6 * pl.col("params") * pl.col("tokens"),
        loss=pl.col("val_loss"),
    )


def flame(folder: Path) -> pl.DataFrame:
    """FLAME-MoE's printed runs (arXiv 2505.20225): 64 experts, top-8; tokens from C = 6 N_a D. Facts only."""
    rows = pl.read_csv(folder / "flame2025" / "runs.csv")
    return rows.select(
        params_total=pl.col("params_total").cast(pl.Float64),
        params_active=pl.col("params_active").cast(pl.Float64),
        tokens=pl.col("flops") / (6.0 * pl.col("params_active")),
        expert_ratio=pl.lit(8.0),
        granularity=pl.lit(8.0),
        train_flops=pl.col("flops"),
        loss=pl.col("loss"),
    )


def records(folder: Path) -> pl.DataFrame:
    """The finished records below a folder as a table, in the order of their ids."""
    from moelab.runs import RunRecord

    found = [RunRecord.model_validate(json.loads(path.read_text(encoding="utf-8"))) for path in folder.rglob("*.json")]
    rows = sorted((record.row() for record in found if record.loss is not None), key=lambda row: row["run_id"])
    return pl.DataFrame(rows, infer_schema_length=None)


def reference(folder: Path) -> pl.DataFrame | None:
    """Our own dense runs and those of token choice, None where there are too few for a table. The sweep of rates is no
    part of it, and no law has the other routers."""
    table = records(folder / "runs") if (folder / "runs").is_dir() else pl.DataFrame()
    if not len(table):
        return None
    table = table.filter(pl.col("router").fill_null("dense").is_in(("dense", "token_choice")))
    return table if len(table) >= 15 else None


def grid(**axes: Iterable[float]) -> Columns:
    """All combinations of the axes."""
    points = np.meshgrid(*(np.asarray(list(values), float) for values in axes.values()), indexing="ij")
    return {name: values.ravel() for name, values in zip(axes, points, strict=True)}


def space(low: float, high: float, n: int = 4) -> np.ndarray:
    """n values evenly spaced in their logarithm."""
    return np.geomspace(low, high, n)


def joint() -> Columns:
    """Ludziejewski's law (arXiv 2502.05172) over its own range, at 3 to 400 tokens per active parameter."""
    c = grid(params_active=space(79e6, 2.7e9), tokens=space(0.5e9, 80e9), expert_ratio=(1, 2, 4, 8, 16, 32))
    c = _kept(c, (c["tokens"] / c["params_active"] >= 3) & (c["tokens"] / c["params_active"] <= 400))
    return {**c, "loss": get_law("ludziejewski2025").loss(None, c)}


def krajewski() -> Columns:
    """Krajewski's three laws (arXiv 2402.07871), expansions 64, 16 and 1, as one table: one text, one tokenizer."""
    parts = []
    for law, expansion in (("krajewski2024", 64), ("krajewski2024-x16", 16), ("krajewski2024-dense", 1)):
        fine = (1, 2, 4, 8, 16) if expansion > 1 else (1,)
        c = grid(params_non_embedding=space(0.129e9, 3.7e9), tokens=space(16e9, 130e9, 3), granularity=fine)
        c["params_active"] = c["params_non_embedding"] * 12 / (8 * expansion + 4)
        if expansion == 1:
            c["params_non_embedding"] = c["params_active"] = c["params_non_embedding"] * 12 / (8 * 64 + 4)
        c["expert_ratio"] = np.full(len(c["tokens"]), float(expansion))
        parts.append({**c, "loss": get_law(law).loss(None, c)})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def hoffmann() -> Columns:
    """Besiroglu's re-fit (arXiv 2404.10102) of Hoffmann's runs: 70M to 16B parameters, 5B to 500B tokens."""
    c = grid(params_total=space(7e7, 1.6e10, 5), tokens=space(5e9, 5e11, 5))
    c = _kept(c, (c["tokens"] / c["params_total"] >= 2) & (c["tokens"] / c["params_total"] <= 200))
    return {**c, "params_active": c["params_total"], "loss": get_law("besiroglu2024").loss(None, c)}


def abnar() -> Columns:
    """Abnar's law (arXiv 2501.12370) up to sparsity 0.9, with the paper's own N_a = N (1 - S), C 3e19 to 1e21."""
    c = grid(train_flops=space(3e19, 1e21, 3), ratio=space(10, 80, 3), sparsity=(0, 0.5, 0.75, 0.9))
    c["params_active"] = np.sqrt(c["train_flops"] / (6 * c["ratio"]))
    c["tokens"] = c["ratio"] * c["params_active"]
    c["params_total"] = c["params_active"] / (1 - c["sparsity"])
    c["expert_ratio"] = 1 / (1 - c["sparsity"])
    return {**c, "loss": get_law("abnar2025").loss(None, c)}


def _kept(columns: Columns, rows: np.ndarray) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


LAWS_ON_GRIDS = {
    "ludziejewski2025": (joint, "arXiv 2502.05172", 0.005),
    "krajewski2024": (krajewski, "arXiv 2402.07871", 0.006),
    "besiroglu2024": (hoffmann, "arXiv 2404.10102", 0.005),
    "abnar2025": (abnar, "arXiv 2501.12370", 0.01),
}
"""Law -> its grid, its paper, and the noise it stands for: Krajewski's RMSE of 0.015 nats, elsewhere 0.5 %; 1 % for
Abnar's, whose active parameters are approximate."""


def run_tables(folder: Path, ours: Path | None = None) -> dict[str, tuple[str, str, pl.DataFrame]]:
    """Name -> group, licence and runs of every table of runs that is there."""
    found = {name: ("clark2022", "CC-BY-4.0", table) for name, table in clark_tables(folder).items()}
    found["muennighoff2023"] = ("muennighoff2023", "Apache-2.0", muennighoff(folder))
    found["flame2025"] = ("flame2025", "no licence: derived numbers only", flame(folder))
    table = reference(ours) if ours is not None and ours.is_dir() else None
    if table is not None:
        found["reference"] = ("reference", "Apache-2.0", table)
    return found


def tables(folder: Path, ours: Path | None = None, without: tuple[str, ...] = ()) -> list[Table]:
    """Every source of the prior but those of the groups in `without`."""
    found = []
    for name, (group, licence, rows) in run_tables(folder, ours).items():
        if group in without:
            continue
        rows = rows.filter(pl.col("params_active") < LARGEST) if group == "clark2022" else rows
        data = observations(rows, LAW)
        if group == "clark2022":  # three routers share the dense runs
            data = _weighted(data, np.where(data.kinds == "dense", 1 / 3, 1.0))
        record = {"kind": "runs", "licence": licence, "rows": len(data), "sha256": digest(rows)}
        only = OURS_ALONE if group == "reference" else ()
        if only:
            record |= {"kind": f"runs, for {', '.join(only)} alone"}
        found.append(Table(name, group, data, record, only=only))
    for law, (make, paper, noise) in LAWS_ON_GRIDS.items():
        if law in without:
            continue
        columns = make()
        record = {"kind": "published law on a grid", "source": paper, "rows": len(columns["loss"])}
        record["sha256"] = digest(pl.DataFrame(columns))
        found.append(Table(law, law, observations(columns, LAW), record, noise))
    return found


def digest(rows: pl.DataFrame) -> str:
    """The hash of a table's numbers."""
    return hashlib.sha256(rows.write_csv(float_precision=9).encode()).hexdigest()


def _weighted(data: Any, weights: np.ndarray) -> Any:
    from dataclasses import replace

    return replace(data, weights=weights)
