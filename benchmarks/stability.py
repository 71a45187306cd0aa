"""Does a small change of the budget change the recommended experts?

    OMP_NUM_THREADS=1 python benchmarks/stability.py [--budgets 40] [--jitters 10] [--json FILE]

Budgets from 1e20 to 1e25 FLOPs, with and without limits on size and data, and clusters of 64 to 4,096 H100 for 30 days
whose models are served on H200, are planned over the default space with all published laws. Each is planned again with
every limit changed by up to 1 %, at random. A flip is another (number of experts, choices per token, kind of model).
Limit: 2 % of the jitters. Expected: about 10 minutes on one core.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from moelab.files import write_json
from moelab.planning import Budget, Plan
from moelab.planning.plan import plan

CAPS: dict[str, tuple[str, ...]] = {"no caps": (), "caps": ("max_params", "max_active", "unique_tokens")}
"""Which limits beside compute are set."""

SERVED = "served"
"""Clusters whose models are served: 1e14 tokens at 512 devices and in proportion, balanced against lifetime cost."""

LIMIT = 0.02


def limits_of(flops: float, caps: tuple[str, ...]) -> dict[str, float]:
    """A budget with caps that bind: half of the sizes that an optimum at 20 tokens per active parameter would have."""
    active = float(np.sqrt(flops / 120))
    values = {"max_active": active / 2, "max_params": 5 * active, "unique_tokens": 20 * active}
    return {"flops": flops} | {name: values[name] for name in caps}


def served_limits(gpus: int) -> dict[str, float]:
    """A cluster's days, unique tokens and served tokens; all may be changed."""
    return {"days": 30.0, "unique_tokens": 2e13, "served": 1e14 * gpus / 512}


def budget_of(name: str, limits: dict[str, float], gpus: int) -> Budget:
    """The budget of these limits; on `gpus` devices where its models are served."""
    if name != SERVED:
        return Budget.parse(limits)
    traffic = {"gpus": 8, "tpot": 0.03, "prompt": 3000, "output": 800, "precision": "fp8"}
    serving = {"hardware": "h200", "tokens": round(limits["served"]), "traffic": traffic}
    fixed = {"gpus": gpus, "train_hardware": "h100", "precision": "fp8", "serving": serving}
    return Budget.parse({name: value for name, value in limits.items() if name != "served"} | fixed)


def choice_of(found: Plan) -> tuple[int, int, str]:
    """(E, K, kind) of the recommended design."""
    best = found.best
    return best.n_experts, best.top_k, "MoE" if best.is_moe else "dense"


def measured(name: str, size: float, jitters: int, rng: np.random.Generator) -> dict[str, Any]:
    """One budget of `size` FLOPs, or devices: its choice, and those of its jitters that differ."""
    gpus = round(size)
    limits = served_limits(gpus) if name == SERVED else limits_of(size, CAPS[name])
    chosen = choice_of(plan(budget_of(name, limits, gpus), top=1))
    others = []
    for _ in range(jitters):
        near = {field: value * (1 + rng.uniform(-0.01, 0.01)) for field, value in limits.items()}
        others.append(choice_of(plan(budget_of(name, near, gpus), top=1)))
    flips = [other for other in others if other != chosen]
    return {"caps": name, "size": size, "choice": chosen, "flips": len(flips), "jitters": jitters, "others": flips}


def main() -> None:
    """Plan, print a row per budget and the share of flips, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--budgets",
        type=int,
        default=20,
        help="how many without serving, half with caps; half as many are served",
    )
    parser.add_argument("--jitters", type=int, default=10)
    parser.add_argument("--json", help="write the rows here")
    options = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    for name in (*CAPS, SERVED):
        ends = (64, 4096) if name == SERVED else (1e20, 1e25)
        for size in np.geomspace(*ends, max(1, options.budgets // len(CAPS))):
            row = measured(name, float(size), options.jitters, rng)
            rows.append(row)
            experts, top_k, kind = row["choice"]
            others = ", ".join(sorted({f"{e} top-{k} {what}" for e, k, what in row["others"]}))
            print(
                f"{name:8} {size:8.2e}  {experts:4} top-{top_k:<2} {kind:5}  flips {row['flips']:2}  {others}",
                flush=True,
            )
    flips, tried = sum(row["flips"] for row in rows), sum(row["jitters"] for row in rows)
    moved = len({row["choice"] for row in rows})
    print(f"{flips} of {tried} jitters flip: {flips / tried:.1%}, limit {LIMIT:.0%}; {moved} different choices")
    if options.json:
        write_json(Path(options.json), {"rows": rows, "share": flips / tried, "limit": LIMIT})


if __name__ == "__main__":
    main()
