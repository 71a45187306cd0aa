"""The loss of one design by fitted or published laws, each with its interval and its distance outside its range."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moelab.architecture import ModelConfig, count_flops, load_model
from moelab.errors import InputError
from moelab.fitting.blanks import zero_as_dense
from moelab.fitting.columns import check_names, columns_of
from moelab.fitting.comparison import Comparison
from moelab.fitting.designs import design_variables, predicted_value
from moelab.fitting.fitted import FittedLaw
from moelab.fitting.floor import FloorPart, across_floor
from moelab.fitting.predict_notes import LawPrediction, law_of, prediction_notes
from moelab.fitting.sources import Source, sources_of
from moelab.laws import Law
from moelab.notebook import html_table, interval_text, short_repr
from moelab.quantities import MOST_CONTEXT, MOST_TOKENS, check_at_most, format_outside, parse_count, parse_number


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The predictions by law, why the other laws give none, and what to know of the fits (their units). `tokens` are
    those of the design and of the one that it is compared with, where they are models."""

    laws: dict[str, LawPrediction]
    failed: dict[str, str]
    notes: tuple[str, ...] = ()
    tokens: tuple[float, ...] = ()

    def __getitem__(self, law: str) -> LawPrediction:
        if law not in self.laws:
            reason = self.failed.get(law, f"known: {', '.join(self.laws)}")
            raise InputError(f"predict: no prediction of {law}: {reason}")
        return self.laws[law]

    @property
    def only(self) -> LawPrediction:
        """The prediction where one law was asked. Raises InputError where there are several."""
        if len(self.laws) != 1:
            raise InputError(f"predict: there are {len(self.laws)} laws, take one: {', '.join(self.laws)}")
        return next(iter(self.laws.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what `moelab predict --json` prints."""
        predictions = {name: each.to_dict() for name, each in self.laws.items()}
        found = {"predictions": predictions, "failed": self.failed, "notes": list(self.notes)}
        return found | ({"tokens": list(self.tokens)} if self.tokens else {})

    def __repr__(self) -> str:
        shown = {name: interval_text(each.value, each.low, each.high) for name, each in self.laws.items()}
        return short_repr(self, **{name.replace("+", "_"): text for name, text in shown.items()})

    def _repr_html_(self) -> str:
        return html_table(
            ["law", "predicts", "value", "p10", "p90", "outside the fitted range"],
            [
                (name, each.kind, each.value, each.low, each.high, format_outside(each.extrapolation))
                for name, each in self.laws.items()
            ],
            note="; ".join(f"{name}: {reason}" for name, reason in self.failed.items()),
        )


def predict(
    fit: FittedLaw | Law | Comparison | Mapping[str, FittedLaw] | str | Path,
    config: ModelConfig | str | Path | None = None,
    *,
    tokens: float | str | None = None,
    seq_len: int | str = 4096,
    laws: Sequence[str] = (),
    noise: bool = False,
    against: ModelConfig | str | Path | None = None,
    **values: float | str,
) -> Predictions:
    """Predict the loss of one design, as `moelab predict` does.

    Args:
        fit: What predicts: a FittedLaw, a Comparison, a mapping of fits, a fit file (all its fits), a Law or
            the id of a published law.
        config: The design (a ModelConfig, a YAML, a run's folder, a preset), converted to each law's own variables.
        tokens: Training tokens (20e9, "20B"); needed with `config`.
        seq_len: Context in tokens at which FLOPs are counted, with `config`.
        laws: Only these of several fits; none: all of them.
        noise: The interval of one more measured run, instead of the law's own.
        against: A second design, trained with as many FLOPs as `config`: which has the lower loss, by the floor.
        **values: Instead of `config`, the law's variables by name (params_active=1e9, tokens="20B").

    Returns:
        Predictions: by law the value (loss in nats per token), p10, p90 and `extrapolation` (log10); `.only` is the one
        of a single law. Laws that cannot predict this design are in `failed`, with the reason.

    Raises:
        InputError: Nothing can be predicted: an unknown law, file or variable, a missing variable, a design that no law
            describes.

    >>> import moelab
    >>> found = moelab.predict("hoffmann2022", params_total="70B", tokens="1.4T")
    >>> round(found.only.value, 3)
    1.921
    >>> moelab.predict("ludziejewski2025", "olmoe-1b-7b", tokens="5T")["ludziejewski2025"].kind
    'loss'
    """
    given = {name: parse_number(value, name) for name, value in values.items()}
    if config is None and tokens is not None:
        given["tokens"] = parse_number(tokens, "tokens")
    given = {name: float(value[0]) for name, value in zero_as_dense(columns_of(given)).items()}
    if (config is None) == (not given):
        raise InputError("predict: give either the law's variables by name, or a config with tokens")
    model = None if config is None else config if isinstance(config, ModelConfig) else load_model(config)
    trained, context = _size(tokens, seq_len) if model is not None else (0.0, 0)
    other = None
    if against is not None:
        if model is None:
            raise InputError("against: needs a config to be compared with")
        other = _matched(against if isinstance(against, ModelConfig) else load_model(against), model, trained, context)
    found: dict[str, LawPrediction] = {}
    failed: dict[str, str] = {}
    sources = sources_of(fit, laws)
    for name, law in sources.items():
        try:
            found[name] = _predicted(law, given, model, trained, context, noise, other)
        except InputError as error:
            failed[name] = str(error)
    if not found:
        raise InputError(next(iter(failed.values())))
    models = [] if model is None else [(model, trained), *([] if other is None else [other])]
    notes = prediction_notes(sources, found, given, models)
    if other is not None and not any(each.floor for each in found.values()):
        notes += ("against: no law here has a floor with draws or a known range, so nothing is compared",)
    return Predictions(laws=found, failed=failed, notes=notes, tokens=tuple(each for _, each in models))


def _matched(other: ModelConfig, model: ModelConfig, tokens: float, seq_len: int) -> tuple[ModelConfig, float]:
    """The other design with the tokens at which it takes as many FLOPs."""
    per_token = [float(count_flops(each, seq_len).train) for each in (model, other)]
    return other, tokens * per_token[0] / per_token[1]


def _size(tokens: float | str | None, seq_len: int | str) -> tuple[float, int]:
    if tokens is None:
        raise InputError("tokens: a config needs the training tokens, such as 300B")
    trained, context = parse_number(tokens, "tokens"), parse_count(seq_len, "seq_len")
    check_at_most(trained, MOST_TOKENS, "tokens")
    check_at_most(context, MOST_CONTEXT, "seq_len")
    return trained, context


def _predicted(
    source: Source,
    values: dict[str, float],
    model: ModelConfig | None,
    tokens: float,
    seq_len: int,
    noise: bool,
    other: tuple[ModelConfig, float] | None = None,
) -> LawPrediction:
    fitted = source if isinstance(source, FittedLaw) else None
    law = law_of(source)
    if model is not None:
        design = law.variables_of(model, tokens, seq_len, published=fitted is None)
        if not design.covered:
            raise InputError(f"{law.id}: {design.why()}")
        given: Any = dict(design.variables)
    else:
        check_names([name for name in values if fitted is None or name not in fitted.ranges], law)
        given = values
    both = _with_other(law, given, other, seq_len, fitted is None)
    if fitted is not None:
        p = fitted.predict(given, noise=noise)
        floor = across_floor(fitted, design_variables(columns_of(both), law))
        return _prediction(law.kind, p.value[0], p.low[0], p.high[0], p.extrapolation[0], floor)
    if noise:
        raise InputError(f"noise: {law.id} has published coefficients and no residuals of runs; only a fit has them")
    numbers = design_variables(columns_of(given), law, tuple(law.ranges))
    value = predicted_value(law, None, numbers)[0]
    floor = across_floor(law, design_variables(columns_of(both), law))
    return _prediction(law.kind, value, None, None, law.extrapolation(numbers)[0], floor)


def _with_other(law: Law, given: Any, other: tuple[ModelConfig, float] | None, seq_len: int, published: bool) -> Any:
    """The design's variables, beside those of the design that it is compared with."""
    if other is None:
        return given
    found = law.variables_of(*other, seq_len, published=published)
    if not found.covered:
        raise InputError(f"{law.id}: against: {found.why()}")
    return {name: np.array([float(given[name]), float(found.variables[name])]) for name in law.variables}


def _prediction(
    kind: str, value: Any, low: Any, high: Any, extrapolation: Any, floor: Sequence[FloorPart] = ()
) -> LawPrediction:
    value, low, high, extrapolation = (
        None if number is None or number != number else float(number) for number in (value, low, high, extrapolation)
    )
    return LawPrediction(kind=kind, value=value, low=low, high=high, extrapolation=extrapolation, floor=tuple(floor))
