"""Every law that a table supports, fitted side by side, ranked by held-out error, weighted for an ensemble."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.blanks import filled
from moelab.fitting.columns import columns_of, variable
from moelab.fitting.diagnosis import common_misfit
from moelab.fitting.fit import check_options, fit_table
from moelab.fitting.fitted import FittedLaw, plot_fits, plot_holdout
from moelab.fitting.holdout import check_column, check_fraction, group_holdout, masked_holdout, ordered_holdout
from moelab.fitting.table_checks import Finding, check_table, measured_runs, repeats_data
from moelab.laws import Law, all_laws, get_law, with_data_reuse
from moelab.notebook import Shown, html_table, short_repr

Array = NDArray[Any]
HOLDOUT = 0.2
SCORES = ("law", "in-sample error", "held-out error", "bias", "coverage of 80 %", "held-out / fitted compute", "weight")
"""Columns of a comparison's `rows`."""


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """`fits` in the order of their rank; `weights` sum to 1; `skipped` gives the reason for each law left out.
    `findings` are those of `check_table`.

    Where some laws have a held-out error, a law without one (too few rows to hold any out) comes last with weight 0.
    Its in-sample error cannot be compared with theirs: more coefficients always lower it.
    """

    fits: dict[str, FittedLaw]
    weights: dict[str, float]
    skipped: dict[str, str]
    findings: tuple[Finding, ...] = ()

    def predict(self, **values: Any) -> Array:
        """The ensemble: the weighted mean of the laws' predicted logarithms."""
        logs = [w * np.log(self.fits[name].predict(**values).value) for name, w in self.weights.items() if w]
        return np.exp(np.sum(logs, axis=0))

    def plot(self) -> Any:
        """Predicted against measured loss, a panel per law, held-out runs marked, as an Altair chart."""
        return plot_fits(list(self.fits.values()))

    def plot_holdout(self) -> Any:
        """Error of each held-out run by how far beyond the fitted ones it lies, a colour per law."""
        return plot_holdout(list(self.fits.values()))

    def rows(self) -> list[tuple[str, ...]]:
        """Per law, as text and by rank: the columns of `SCORES`, errors relative to the measured loss."""
        return [(name, *_score(fitted), f"{self.weights[name]:.2f}") for name, fitted in self.fits.items()]

    def __repr__(self) -> str:
        weights = {name: f"{weight:.2f}" for name, weight in self.weights.items()}
        return short_repr(self, weights=", ".join(f"{n} {w}" for n, w in weights.items()), skipped=len(self.skipped))

    def _repr_html_(self) -> str:
        left_out = "; ".join(f"{name}: {reason}" for name, reason in self.skipped.items())
        return html_table(SCORES, self.rows(), note=f"left out: {left_out}" if left_out else "")

    def disagreement(self, table: Any) -> list[dict[str, Any]]:
        """Per row of a table: every law's prediction and the spread between the highest and the lowest."""
        columns = {name: fitted.predict(table).value for name, fitted in self.fits.items()}
        stacked = np.stack(list(columns.values()))
        spread = np.ptp(stacked, axis=0)
        return [
            {**{name: float(values[i]) for name, values in columns.items()}, "spread": float(spread[i])}
            for i in range(stacked.shape[1])
        ]


def _score(fitted: FittedLaw) -> tuple[str, ...]:
    held, seen = fitted.holdout, f"{fitted.in_sample['mean_abs_rel']:.2%}"
    if held is None:
        return (seen, "-", "-", "-", "-")
    coverage = "-" if held.coverage_80 is None else f"{held.coverage_80:.0%}"
    reach = "-" if held.max_extrapolation is None else f"{held.max_extrapolation:.2g}x"
    return (seen, f"{held.mean_abs_rel:.2%}", f"{held.bias_rel:+.2%}", coverage, reach)


def supported_laws(table: Any, target: str | None = None) -> tuple[list[Law], dict[str, str]]:
    """The laws whose variables a table has and which describe its runs; and for the others, why not.

    Laws that share one form differ only in their published coefficients: the first of them stands for all. Where rows
    repeat their data, a law in tokens that does not see it is LAW+reuse.
    """
    columns, _ = filled(columns_of(table))
    repeated = repeats_data(columns)
    moe, tokens = variable(columns, "expert_ratio"), variable(columns, "tokens")
    data_differs = tokens is not None and np.max(tokens) > 1.25 * np.min(tokens)
    found: list[Law] = []
    skipped: dict[str, str] = {}
    for law in all_laws().values():
        missing = [name for name in law.variables if variable(columns, name) is None]
        same = next((other.id for other in found if other.form == law.form and other.variables == law.variables), None)
        if law.kind != "loss" and target in (None, "loss"):
            skipped[law.id] = f"predicts {law.kind}, not loss"
        elif missing:
            skipped[law.id] = f"no column for {', '.join(missing)}"
        elif not law.covers_moe and moe is not None and np.any(moe > 1):
            skipped[law.id] = "describes dense models only"
        elif not law.covers_dense and moe is not None and np.any(moe == 1):
            skipped[law.id] = "does not describe the dense runs; leave them out with --where"
        elif "tokens" not in law.variables and data_differs:
            skipped[law.id] = "has no variable for tokens, in which the runs differ"
        elif same is not None:
            skipped[law.id] = f"the same form as {same}"
        else:
            blind = repeated and "tokens" in law.variables and "unique_tokens" not in law.variables
            found.append(with_data_reuse(law) if blind else law)
    return found, skipped


def compare_laws(
    table: Any,
    laws: Sequence[str | Law] | None = None,
    *,
    holdout: float | None = None,
    holdout_optional: bool = True,
    holdout_by: str | None = None,
    holdout_rows: Any = None,
    skip_unfit: bool = False,
    **options: Any,
) -> Comparison:
    """Fit laws to one table of runs and rank them by held-out error, else by in-sample error.

    Args:
        table: The runs, as `moelab.fit` takes them.
        laws: Laws or their ids; None: every law that the table supports, as LAW+reuse where rows repeat their data.
        holdout: Share of the largest-compute runs to hold out, above 0 and below 1.
        holdout_optional: With no hold-out named, hold out a fifth of the runs where that leaves enough.
        holdout_by: A column: leave out each of its values in turn.
        holdout_rows: One true or false per run: which to hold out.
        skip_unfit: List named laws that cannot be fitted in `skipped`, too, instead of refusing them.
        **options: As in `moelab.fit`: loss, objective, fix, share, bootstrap, group, weight, seed, starts.

    Returns:
        A Comparison: `fits` by law in the order of their rank, `weights` (inverse mean-square errors, held-out
        where any law has them), `skipped` laws with the reasons.

    Raises:
        InputError: Two hold-outs, a table that supports no law, a named law that cannot be fitted, bad columns.

    >>> import moelab
    >>> runs = {"params_total": [1e7, 2e7, 4e7, 8e7] * 3, "tokens": [1e8] * 4 + [4e8] * 4 + [2e9] * 4}
    >>> law = moelab.get_law("besiroglu2024")
    >>> runs["loss"] = [float(law.loss(None, {"params_total": n, "tokens": d})) for n, d in zip(*runs.values())]
    >>> found = moelab.compare_laws(runs, ["besiroglu2024"], holdout=0.2, bootstrap=20, starts=32)
    >>> list(found.fits), found.weights
    (['besiroglu2024'], {'besiroglu2024': 1.0})
    """
    laws = [laws] if isinstance(laws, str) else laws
    if sum(each is not None for each in (holdout, holdout_by, holdout_rows)) > 1:
        raise InputError("holdout: --holdout, --holdout-by and --holdout-where exclude one another; give one of them")
    if holdout is not None:
        check_fraction(holdout)
    check_options(**{name: options[name] for name in ("bootstrap", "starts", "seed") if name in options})
    target = options.get("loss") or "loss"
    findings = check_table(table, target)
    table, kept, _ = measured_runs(table, target)
    if holdout_rows is not None and kept is not None:
        holdout_rows = np.asarray(holdout_rows, bool)[kept]
    if holdout_by is not None:
        check_column(table, holdout_by)
    chosen, skipped = supported_laws(table, target) if laws is None else ([], {})
    chosen = [get_law(law) if isinstance(law, str) else law for law in laws] if laws is not None else chosen
    if laws is None and not chosen:
        near = min(
            skipped, key=lambda name: skipped[name].count(",") + 99 * (not skipped[name].startswith("no column"))
        )
        raise InputError(f"law: the table supports no law; the nearest is {near}: {skipped[near]}")
    fits: dict[str, FittedLaw] = {}
    for law in chosen:
        try:
            fits[law.id] = fit_with_holdout(
                table,
                law,
                holdout=holdout,
                holdout_by=holdout_by,
                holdout_rows=holdout_rows,
                holdout_optional=holdout_optional,
                **_options_for(law, options, chosen),
            )
        except InputError as error:
            if laws is not None and not skip_unfit:
                raise
            skipped[law.id] = str(error).removeprefix(f"{law.id}: ")
    if not fits:
        tried = {law.id: skipped[law.id] for law in chosen}
        reasons = "; ".join(
            f"{reason} ({', '.join(n for n in tried if tried[n] == reason)})" for reason in _once(tried)
        )
        raise InputError(f"law: no law could be fitted: {reasons}")
    ranked = dict(sorted(fits.items(), key=lambda item: (item[1].holdout is None, _error(item[1]))))
    scored = any(fitted.holdout is not None for fitted in fits.values())
    inverse = {
        name: 0.0 if scored and fitted.holdout is None else 1 / max(_mean_square(fitted), 1e-12)
        for name, fitted in ranked.items()
    }
    total = sum(inverse.values())
    weights = {name: value / total for name, value in inverse.items()}
    misfit = common_misfit(ranked)
    if misfit is not None:
        findings.append(Finding(check="misfit", text=misfit, mend="add a law with --law-file"))
    notes = [str(finding) for finding in findings if finding.check != "copies"]  # those a fit notes by itself
    ranked = {name: replace(fitted, notes=(*notes, *fitted.notes)) for name, fitted in ranked.items()}
    return Comparison(ranked, weights, skipped, tuple(findings))


def _once(reasons: dict[str, str]) -> list[str]:
    return list(dict.fromkeys(reasons.values()))


def fit_with_holdout(
    table: Any,
    law: str | Law,
    *,
    holdout: float | None = None,
    holdout_by: str | None = None,
    holdout_rows: Any = None,
    holdout_optional: bool = False,
    **options: Any,
) -> FittedLaw:
    """`fit` on every run, plus the score of a fit that did not see some of them (a fraction, a column, or rows)."""
    fitted = fit_table(table, get_law(law) if isinstance(law, str) else law, **options)
    if holdout_rows is not None:
        return fitted.with_holdout(masked_holdout(table, law, holdout_rows, **options)[1])
    if holdout_by is not None:
        return fitted.with_holdout(group_holdout(table, law, holdout_by, **options))
    if holdout is not None:
        return fitted.with_holdout(ordered_holdout(table, law, holdout, **options)[1])
    if not holdout_optional:
        return fitted
    try:
        return fitted.with_holdout(ordered_holdout(table, law, HOLDOUT, **options)[1])
    except InputError as error:
        return replace(fitted, notes=(*fitted.notes, f"no hold-out: {str(error).removeprefix('holdout: ')}"))


def _options_for(law: Law, options: dict[str, Any], chosen: Sequence[Law]) -> dict[str, Any]:
    """With several laws, `fix` and `share` apply where a law has the coefficient; one of them must."""
    if len(chosen) == 1:
        return options
    kept = dict(options)
    for name in options.get("fix") or {}:
        if not any(name in other.coefficients or name in other.aliases for other in chosen):
            raise InputError(f"fix: none of {', '.join(other.id for other in chosen)} has a coefficient {name!r}")
    has = {*law.coefficients, *law.aliases}
    kept["fix"] = {name: value for name, value in (options.get("fix") or {}).items() if name in has}
    kept["share"] = [names for names in options.get("share") or () if set(names) <= has]
    return kept


def _error(fitted: FittedLaw) -> float:
    return fitted.holdout.mean_abs_rel if fitted.holdout else fitted.in_sample["mean_abs_rel"]


def _mean_square(fitted: FittedLaw) -> float:
    if fitted.holdout is None:
        return fitted.in_sample["rmse_log"] ** 2
    return float(np.mean([np.log(row["predicted"] / row["measured"]) ** 2 for row in fitted.holdout.rows]))
