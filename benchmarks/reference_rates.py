"""The learning rate of the reference study's runs, from the finished runs of `reference-rates`.

    python benchmarks/reference_rates.py                # print the rule
    python benchmarks/reference_design.py --write       # write it into the study

Per size and kind the best rate is the vertex of a parabola through log rate and loss, within the rates tried. The rule
is rate = c N_a^p with N_a the active parameters. Until three sizes are finished p is -0.406, assumed: Step Law's
N^-0.713 D^0.307 (arXiv 2503.04715) along runs of equal tokens per parameter. The batch is fixed, so D is no variable.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RECORDS = Path(__file__).parents[1] / "results" / "reference" / "rates"
PARAMS = -0.713 + 0.307
FEWEST_SIZES = 3


@dataclass(frozen=True)
class Rule:
    """rate = constant N_a^params."""

    constant: float
    params: float
    text: str

    def rate(self, active: float) -> float:
        """The rate of a run, to three digits."""
        return float(f"{self.constant * active**self.params:.3g}")


def best_rates(records: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """(N_a, best rate) of every size and kind with three rates or more."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["d_model"], record["kind"]), []).append(record)
    found = []
    for rows in groups.values():
        if len({row["learning_rate"] for row in rows}) < 3:
            continue
        x = np.log([row["learning_rate"] for row in rows])
        y = np.array([row["loss"] for row in rows])
        bend, slope, _ = np.polyfit(x, y, 2)
        best = np.clip(-slope / (2 * bend), x.min(), x.max()) if bend > 0 else x[np.argmin(y)]
        found.append((float(rows[0]["params_active"]), float(np.exp(best))))
    return found


def fitted_rule(folder: Path = RECORDS) -> Rule:
    """The rule by the records that there are."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    best = best_rates([record for record in records if record["loss"] is not None])
    if not best:
        raise SystemExit(f"no size in {folder} has three rates yet")
    return rule_of(best)


def rule_of(best: list[tuple[float, float]]) -> Rule:
    """The rule through the best rates."""
    active, rate = (np.log([row[k] for row in best]) for k in (0, 1))
    params, sizes = PARAMS, len({round(float(np.log2(row[0]))) for row in best})
    if sizes >= FEWEST_SIZES:
        params = float(np.polyfit(active, rate, 1)[0])
    constant = float(np.exp(np.mean(rate - params * active)))
    source = "fitted" if sizes >= FEWEST_SIZES else "assumed (Step Law's, arXiv 2503.04715)"
    return Rule(
        constant, params, f"{constant:.3g} N_a^{params:.3f}, constant of {len(best)} sweeps, exponent {source}."
    )


if __name__ == "__main__":
    rule = fitted_rule()
    print(rule.text)
    for active in (27e3, 90e3, 230e3, 530e3, 750e3):
        print(f"N_a {active:9,.0f}  rate {rule.rate(active):.4f}")
