"""What a user's own fits bring to a plan or a comparison: what they owe a prior, and the designs that they exclude."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.fitted_kinds import EXTRAPOLATE, kind_of_runs, single_values, value_words
from moelab.fitting.owed import owed_notes
from moelab.laws.law import RANGE_SLACK
from moelab.planning.predictors import Predictor
from moelab.planning.ranking import Ranking
from moelab.planning.sides import Side

Array = NDArray[Any]

_NO_OTHERS = f"the fitted runs have no others ({EXTRAPOLATE} ranks others, too)"


def owed_warnings(predictors: Sequence[Predictor], moe: bool) -> list[str]:
    """A line per fit on what it owes its prior; with `moe`, on what experts are worth."""
    return [line for predictor in predictors for line in owed_notes(predictor.id, predictor.prior, moe)]


def unranked_kinds(ranking: Ranking) -> list[str]:
    """The kinds of design, dense or MoE, that fit the limits and that the ensemble does not cover."""
    moe, covered = ranking.feasible.lattice.is_moe, ranking.covered_by > 0
    ranked = covered if ranking.cost is not None else np.isfinite(ranking.score)
    return [name for name, kind in (("dense", ~moe), ("MoE", moe)) if kind.any() and not (ranked & kind).any()]


def ranked_note(ranking: Ranking) -> str:
    """Which designs alone are ranked, and that the fitted runs are the reason; empty where they exclude none.

    With `extrapolate`: which designs are ranked although no fitted run is of their kind.
    """
    laws, missing = ranking.ensemble_laws, unranked_kinds(ranking)
    beyond = any(law.extrapolate for law in laws)
    kinds = {None if law.published else kind_of_runs(law.ranges) for law in laws}
    if missing:
        return _only_kind(missing[0], None if beyond or len(kinds) > 1 else kinds.pop(), ranking)
    if beyond:
        return _extrapolated(kinds, ranking.feasible.lattice.is_moe)
    values = value_words(_only_values(ranking))
    return f"only designs of {values} are ranked: {_NO_OTHERS}" if values else ""


def _only_kind(missing: str, runs: str | None, ranking: Ranking) -> str:
    """One kind of design is not ranked; `runs` is the kind of all fitted runs, where they are the reason."""
    if missing == "MoE":
        if runs == "dense":
            return f"only dense designs are ranked: the fitted runs are all dense ({EXTRAPOLATE} ranks MoE, too)"
        return "no law of the ensemble covers MoE models: only dense designs are ranked"
    if runs != "MoE":
        return "no law of the ensemble covers dense models: MoE and dense are not compared"
    values = value_words(_only_values(ranking))
    if values:
        return f"only MoE designs of {values} are ranked: {_NO_OTHERS}"
    return f"only MoE designs are ranked: no fitted run is dense ({EXTRAPOLATE} ranks dense, too)"


def _extrapolated(kinds: set[str | None], moe: Array) -> str:
    """Which designs are ranked although the fitted runs have none of their kind."""
    if kinds == {"dense"} and moe.any():
        return f"MoE designs are ranked by {EXTRAPOLATE} alone: the fitted runs are all dense"
    if kinds == {"MoE"} and not moe.all():
        return f"dense designs are ranked by {EXTRAPOLATE} alone: no fitted run is dense"
    return ""


def _only_values(ranking: Ranking) -> dict[str, float]:
    """The variables of experts of which every fit of the ensemble has the same one value, where the designs that fit
    have others."""
    laws = ranking.ensemble_laws
    if any(law.published for law in laws):
        return {}
    first, *others = (single_values(law.ranges) for law in laws)
    same = {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}
    return {name: value for name, value in same.items() if name in ranking.inputs and _differs(ranking, name, value)}


def _differs(ranking: Ranking, name: str, value: float) -> bool:
    return bool(np.any(np.abs(ranking.inputs[name] - value) > (10**RANGE_SLACK - 1) * max(value, 1.0)))


def compared_fits(sides: Sequence[Side], predictors: Sequence[Predictor]) -> list[str]:
    """Of a comparison: what is known of its fits, what they owe their priors, and the designs to which a fit does not
    apply, with the reason."""
    lines: list[str] = []
    for predictor in (each for each in predictors if not each.published):
        lines += predictor.fit_notes
        predicted = [side for side in sides if side.loss[predictor.id].value is not None]
        if predicted:
            lines += owed_warnings([predictor], any(side.config.moe is not None for side in predicted))
        lines += [
            f"{predictor.id} does not apply to {side.name}: {side.loss[predictor.id].not_covered}"
            for side in sides
            if side not in predicted
        ]
    return lines
