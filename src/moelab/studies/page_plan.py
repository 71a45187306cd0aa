"""Sections of a study's report on its laws: their errors, their recommendation, and its measured loss."""

from moelab.fitting import Comparison
from moelab.fitting.fitted import fit_rows
from moelab.planning import Candidate, Plan
from moelab.planning.phrases import binding_sentence
from moelab.report import Figure, Section, Table, figures
from moelab.studies.answer import describe_model
from moelab.studies.outcome import StudyOutcome
from moelab.studies.verify import ROLES

_SHOWN_CANDIDATES = 6


def verified_section(outcome: StudyOutcome) -> Section:
    """The laws' predictions for the final runs against the measured losses."""
    rows = [
        {
            "label": f"{ROLES[each.role]}: {each.label}",
            "kind": each.kind,
            "law": law,
            "predicted": predicted["value"],
            "low": predicted["low"],
            "high": predicted["high"],
            "measured": each.record.loss,
            "seed_noise": None if outcome.noise is None else outcome.noise.deviation,
        }
        for each in outcome.verified
        if each.record.loss is not None
        for law, predicted in each.predicted.items()
    ]
    table = [
        [ROLES[each.role], each.label, each.record.loss, law, value, _error(value, each.record.loss)]
        for each in outcome.verified
        for law, value in ((law, predicted["value"]) for law, predicted in each.predicted.items())
    ]
    return Section(
        "Predicted against measured",
        text=[
            "The recommendation and its baseline were trained with the settings of the fitted runs, at a budget above "
            "all of them. The intervals (80 %) are those of one more run: uncertainty of the fit plus scatter."
        ],
        figures=[
            Figure(
                figures.verification(rows) if rows else None,
                "Each law's prediction with its 80 % interval. Vertical line: measured; band: one seed deviation.",
            )
        ],
        tables=[Table(["model", "design", "measured", "law", "predicted", "error"], table)],
    )


def plan_section(outcome: StudyOutcome, plan: Plan) -> Section:
    """The best designs with each law's prediction, and the best design of the other kind."""
    shown: list[Candidate] = plan.candidates[:_SHOWN_CANDIDATES]
    other = plan.best_dense if plan.best.is_moe else plan.best_moe
    if other is not None and other not in shown:
        shown = [*shown, other]
    rows = [
        {
            "label": f"{_rank(plan.candidates, design)} {design.label}",
            "law": law,
            "loss": predicted.value,
            "low": predicted.low,
            "high": predicted.high,
            "kind": "moe" if design.is_moe else "dense",
            "rank": place,
        }
        for place, design in enumerate(shown, 1)
        for law, predicted in design.loss.items()
        if predicted.value is not None
    ]
    table = [
        [
            _rank(plan.candidates, design),
            describe_model(design.config),
            design.params_total,
            design.params_active,
            design.tokens,
            design.mean_loss.value if design.mean_loss else None,
            design.regret_loss.value,
        ]
        for design in shown
    ]
    return Section(
        "What to train",
        text=[
            f"{plan.n_designs:,} architectures were enumerated, {plan.n_feasible:,} fit the budget, and "
            f"{plan.near_equal - 1:,} others are near-equal to the best ({plan.near_equal_rule}).",
            *binding_sentence(plan.binding),
        ],
        figures=[Figure(figures.candidates(rows), "Planned designs, best first, with each law's prediction.")],
        tables=[Table(["rank", "design", "parameters", "active", "tokens", "loss", "regret, nats"], table)],
        warnings=outcome.warnings,
    )


def laws_section(comparison: Comparison) -> Section:
    """Every fitted law: its errors, its weight in the ensemble, and what was left out."""
    points = [row for fitted in comparison.fits.values() for row in fit_rows(fitted)]
    table = [
        [
            name,
            f"{fitted.in_sample['mean_abs_rel']:.1%}",
            f"{fitted.holdout.mean_abs_rel:.1%}" if fitted.holdout else None,
            f"{fitted.holdout.bias_rel:+.1%}" if fitted.holdout else None,
            _times(fitted.holdout.max_extrapolation) if fitted.holdout else None,
            f"{comparison.weights[name]:.2f}",
            ", ".join(fitted.held) or "none",
        ]
        for name, fitted in comparison.fits.items()
    ]
    columns = ["law", "error in sample", "held out", "bias held out", "reach", "weight", "held fixed"]
    notes = [f"{name}: {note}." for name, fitted in comparison.fits.items() for note in fitted.notes]
    return Section(
        "The laws",
        text=[
            "Each law was fitted to all runs, and once more without the most expensive ones, which it then predicted. "
            "The weights of the ensemble are the inverse mean-square errors on those held-out runs. The reach is the "
            "training compute of the largest held-out run over that of the largest fitted run.",
        ],
        figures=[Figure(figures.predicted_measured(points), "Predicted against measured loss of the runs.")],
        tables=[Table(columns, table)],
        warnings=[*(f"{name} was left out: {why}." for name, why in comparison.skipped.items()), *notes],
    )


def _rank(candidates: list[Candidate], design: Candidate) -> str:
    return f"{candidates.index(design) + 1}." if design in candidates else "baseline"


def _error(predicted: float, measured: float | None) -> str | None:
    if measured is None:
        return None
    return f"{predicted / measured - 1:+.1%}".replace("-0.0%", "0.0%").replace("+0.0%", "0.0%")


def _times(factor: float | None) -> str | None:
    return None if factor is None else f"{factor:.3g} x"
