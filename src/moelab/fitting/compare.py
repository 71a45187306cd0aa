"""Every law that a table supports, fitted side by side, ranked by held-out error, weighted for an ensemble."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.errors import InputError
from moelab.fitting.comparison import Comparison
from moelab.fitting.diagnosis import common_misfit
from moelab.fitting.disagreement import largest_disagreements
from moelab.fitting.findings import Finding
from moelab.fitting.fit import check_options, fit_table
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.holdout import check_column, check_fraction, group_holdout, masked_holdout, ordered_holdout
from moelab.fitting.prior import NONE, read_prior
from moelab.fitting.supported import supported_laws
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_rows import measured_runs
from moelab.laws import Law, get_law

Array = NDArray[Any]
HOLDOUT = 0.2


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
        laws: Laws or their ids; None or `all`: every law that the table supports, as LAW+reuse where rows repeat
            their data.
        holdout: Share of the largest-compute runs to hold out, above 0 and below 1.
        holdout_optional: With no hold-out named, hold out a fifth of the runs where that leaves enough.
        holdout_by: A column: leave out each of its values in turn.
        holdout_rows: One true or false per run: which to hold out.
        skip_unfit: List named laws that cannot be fitted in `skipped`, too, instead of refusing them.
        **options: As in `moelab.fit`: loss, objective, fix, share, bootstrap, group, weight, seed, starts, prior.

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
    laws = None if laws is not None and "all" in laws else laws
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
    notes = [str(finding) for finding in findings]
    ranked = {name: replace(fitted, notes=(*notes, *fitted.notes)) for name, fitted in ranked.items()}
    return Comparison(ranked, weights, skipped, tuple(findings), tuple(largest_disagreements(ranked, table)))


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
    """With several laws, `fix` and `share` apply where a law has the coefficient, a prior where it is the law's; one
    of them must."""
    if len(chosen) == 1:
        return options
    kept = dict(options)
    for name in options.get("fix") or {}:
        if not any(name in other.coefficients or name in other.aliases for other in chosen):
            raise InputError(f"fix: none of {', '.join(other.id for other in chosen)} has a coefficient {name!r}")
    has = {*law.coefficients, *law.aliases}
    kept["fix"] = {name: value for name, value in (options.get("fix") or {}).items() if name in has}
    kept["share"] = [names for names in options.get("share") or () if set(names) <= has]
    if options.get("prior") is not None and options["prior"] != NONE:
        known = read_prior(options["prior"])
        if not any(known.is_for(other.id) for other in chosen):
            raise InputError(f"prior: {known.name} is for {known.law}, which is not among the laws")
        kept["prior"] = known if known.is_for(law.id) else None
    return kept


def _error(fitted: FittedLaw) -> float:
    return fitted.holdout.mean_abs_rel if fitted.holdout else fitted.in_sample["mean_abs_rel"]


def _mean_square(fitted: FittedLaw) -> float:
    if fitted.holdout is None:
        return fitted.in_sample["rmse_log"] ** 2
    return float(np.mean([np.log(row["predicted"] / row["measured"]) ** 2 for row in fitted.holdout.rows]))
