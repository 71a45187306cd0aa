"""How often `moelab study quickstart` decides between MoE and dense, and how often rightly: simulated, nothing trained.

    OMP_NUM_THREADS=1 python benchmarks/quickstart_decides.py [--count 200] [--law moelab2026] [--out result.json]
    OMP_NUM_THREADS=1 python benchmarks/quickstart_decides.py --study studies/quickstart    # take its runs anew

A law fitted to the runs of one real quickstart is taken for the truth, and the spread between its seeds for the noise.
Every simulated quickstart has the real one's runs with losses drawn from both. It fits its laws, plans, and compares
the recommendation with the best design of the other kind, as the study does. Four ways of doing so see the same draws:
the laws without and with moelab2026 and its prior, one seed and two at the decision. About four CPU-minutes.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from moelab.errors import InputError
from moelab.fitting import Comparison, FittedLaw, compare_laws
from moelab.fitting.fit import fit
from moelab.planning import Budget, Candidate, Plan, Space
from moelab.planning.plan import plan
from moelab.runs.folder import RunFolder
from moelab.studies import StudyConfig, load_study
from moelab.studies.seeds import SeedNoise
from moelab.studies.verify import Verdict, compared_designs

MEASURED = Path(__file__).parent / "measured" / "quickstart.csv"
COLUMNS = (
    "run_id", "role", "kind", "params_total", "params_active", "params_non_embedding", "params_active_non_embedding",
    "router", "n_experts", "top_k", "n_shared_experts", "d_expert", "d_shared", "granularity", "expansion", "sparsity",
    "d_model", "d_ff", "n_layers", "n_heads", "tokens", "unique_tokens", "train_flops", "seed", "loss",
)  # fmt: skip
"""Of the runs' records: what laws, replicates and the noise need."""
PRIOR = "moelab2026"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to end a quickstart: with the law of the prior or without, and with how many seeds at the decision."""

    prior: bool
    seeds: int

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{'with' if self.prior else 'without'} {PRIOR}, {self.seeds} seed{'s' if self.seeds > 1 else ''}"


WAYS = tuple(Way(prior=prior, seeds=seeds) for prior in (False, True) for seeds in (1, 2))


@dataclass(frozen=True, kw_only=True)
class Result:
    """One simulated quickstart: whether it decides, whether that is right, and what its recommendation gives away."""

    decided: bool
    right: bool
    excess: float


def take(folder: Path) -> pl.DataFrame:
    """The runs of a finished quickstart: those its laws are fitted to, then those of its decision, with their role."""
    fitted = pl.read_csv(folder / "runs.csv")["run_id"].to_list()
    roles = {each["run_id"]: each["role"] for each in json.loads((folder / "verify.json").read_text(encoding="utf-8"))}
    rows = []
    for run in [*fitted, *roles]:
        row = RunFolder.open(folder / "runs" / str(run)).load_record().row()
        rows.append({name: {**row, "role": roles.get(run, "")}[name] for name in COLUMNS})
    return pl.DataFrame(rows, infer_schema_length=None)


def repeated(rows: pl.DataFrame) -> list[np.ndarray]:
    """The losses of the designs that were trained with several seeds."""
    same = [name for name in COLUMNS if name not in ("run_id", "seed", "loss", "role")]
    groups = [group["loss"].to_numpy() for _, group in rows.group_by(same, maintain_order=True)]
    return [losses for losses in groups if len(losses) > 1]


def pooled(groups: list[np.ndarray]) -> SeedNoise:
    """The spread within groups of losses, as a study pools it. Raises InputError where there is none."""
    groups = [losses for losses in groups if len(losses) > 1]
    freedom = sum(len(losses) - 1 for losses in groups)
    if not freedom:
        raise InputError("study: no run was repeated, so the noise between seeds is unknown")
    squares = sum(float(np.sum((losses - losses.mean()) ** 2)) for losses in groups)
    return SeedNoise(deviation=math.sqrt(squares / freedom), freedom=freedom)


class Simulation:
    """Quickstarts whose losses are those of `truth` with `noise`, the spread of log losses between seeds."""

    def __init__(self, study: StudyConfig, rows: pl.DataFrame, truth: FittedLaw, noise: float) -> None:
        assert study.plan is not None
        self.study, self.rows, self.truth, self.noise = study, rows, truth, noise
        self.values = truth.predict(rows).value
        self.space = Space.parse(study.plan.space, "plan.space")
        flops = study.plan.flops_times * float(rows["train_flops"].to_numpy().max())
        self.budget = Budget(flops=flops, max_params=study.plan.max_params)
        self.best = self.loss_of(self.planned([truth], [1.0]).best)

    def planned(self, laws: list[FittedLaw], weights: list[float]) -> Plan:
        """The plan of these laws."""
        return plan(self.budget, laws, self.space, weights=weights)

    def loss_of(self, design: Candidate) -> float:
        """The true loss of a design."""
        seq_len = int(self.space.seq_len)
        return float(self.truth.predict_model(design.config, float(design.tokens), seq_len).value.reshape(-1)[0])

    def quickstart(self, seed: int) -> dict[Way, Result]:
        """One quickstart by every way, with the same draws of the noise."""
        rng = np.random.default_rng(seed)
        drawn = self.rows.with_columns(loss=self.values * np.exp(self.noise * rng.standard_normal(len(self.rows))))
        found = compared(self.study, drawn)
        shocks = self.noise * rng.standard_normal((2, 2))  # kind x seed
        plans = {prior: self.planned(*laws_of(found, prior)) for prior in (False, True)}
        return {way: self.decide(plans[way.prior], drawn, shocks[:, : way.seeds]) for way in WAYS}

    def decide(self, found: Plan, drawn: pl.DataFrame, shocks: np.ndarray) -> Result:
        """Train both designs (draw their losses) and judge, as a study does."""
        pair = compared_designs(found)
        true = {design.is_moe: self.loss_of(design) for design in pair.values()}
        measured = {moe: true[moe] * np.exp(shocks[int(moe)]) for moe in true}
        noise = pooled([*repeated(drawn), *measured.values()])
        verdict = Verdict(
            moe_loss=float(measured[True].mean()),
            dense_loss=float(measured[False].mean()),
            noise=noise,
            seeds=shocks.shape[1],
        )
        right = (verdict.margin > 0) == (true[False] > true[True])
        return Result(decided=verdict.decided, right=right, excess=self.loss_of(found.best) - self.best)


def compared(study: StudyConfig, rows: pl.DataFrame) -> Comparison:
    """The study's laws fitted to these runs and ranked by their hold-out; without draws, which decide nothing here."""
    step = study.fit
    assert step is not None
    options = {"holdout": step.holdout, "holdout_optional": False, "skip_unfit": True, "seed": step.seed}
    return compare_laws(rows, step.laws, bootstrap=0, prior=step.prior, **options)


def laws_of(found: Comparison, prior: bool) -> tuple[list[FittedLaw], list[float]]:
    """The fits with the law of the prior or without it, and their weights."""
    fits = {name: fitted for name, fitted in found.fits.items() if prior or name != PRIOR}
    return list(fits.values()), [found.weights[name] for name in fits]


def simulate(simulation: Simulation, count: int) -> Iterator[dict[Way, Result]]:
    """The quickstarts of seeds 0 to count - 1."""
    for seed in range(count):
        yield simulation.quickstart(seed)


def table(found: list[dict[Way, Result]]) -> dict[str, dict[str, float]]:
    """Way -> share that decides, share of those that is right, mean excess loss of the recommendation in nats."""
    rows = {}
    for way in WAYS:
        results = [each[way] for each in found]
        decided = [result for result in results if result.decided]
        right = sum(result.right for result in decided) / len(decided) if decided else math.nan
        excess = float(np.mean([result.excess for result in results]))
        rows[way.name] = {"decided": len(decided) / len(results), "right": right, "excess": excess}
    return rows


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--law", default=PRIOR, help="the law that is taken for the truth")
    parser.add_argument("--study", type=Path, help="a finished quickstart, whose runs become the measured ones")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    options = parser.parse_args()
    if options.study is not None:
        take(options.study).write_csv(MEASURED)
        print(f"wrote {MEASURED}")
        return
    measured = pl.read_csv(MEASURED)
    noise = pooled([np.log(losses) for losses in repeated(measured)])
    rows = measured.filter(pl.col("role") == "")
    truth = fit(rows, options.law, bootstrap=0)
    simulation = Simulation(load_study("quickstart"), rows, truth, noise.deviation)
    print(f"truth: {options.law}, {truth.in_sample['mean_abs_rel']:.2%} off the runs that it is fitted to")
    print(f"noise: {noise.deviation:.2%} between seeds ({noise.freedom} degrees of freedom)")
    found = list(simulate(simulation, options.count))
    print(f"\nof {options.count} quickstarts, decided / of those rightly / recommendation behind the best design, nats")
    result = table(found)
    for name, row in result.items():
        print(f"  {name:32s} {row['decided']:6.1%} {row['right']:7.1%} {row['excess']:8.4f}")
    if options.out is not None:
        options.out.write_text(json.dumps({"law": options.law, "noise": noise.deviation, "ways": result}, indent=1))


if __name__ == "__main__":
    main()
