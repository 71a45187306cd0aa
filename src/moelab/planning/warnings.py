"""The warnings of a plan: sentences about the limits of its predictions."""

from moelab.fitting.implausible import MEANINGLESS
from moelab.laws import effective_tokens
from moelab.laws.reuse import R_D
from moelab.planning.allocation import allocation_doubts
from moelab.planning.budget import COSTS
from moelab.planning.candidate import Candidate
from moelab.planning.nearest import apart_from_released
from moelab.planning.ranking import Ranking
from moelab.planning.result import Plan
from moelab.planning.sanity import guesses_of, worse_than_guessing
from moelab.planning.sensitivity import space_ends
from moelab.planning.served_design import few_requests, open_limits, slow_without_limit
from moelab.planning.uncertainty import Decision
from moelab.planning.warnings_ensemble import ensemble_warnings
from moelab.quantities import format_dollars, format_number, format_outside

FAR = 0.5
"""log10 distance outside the fitted range from which a prediction is called an extrapolation (a factor of three)."""


AXES = {
    "space.d_model": "the widths",
    "space.n_layers": "the numbers of layers",
    "space.n_experts": "the numbers of experts",
    "space.aspect": "the ratios of width to depth",
}
"""Axes of the space in words, by their names in `binding`."""

LITTLE = 1000
"""Cost of training over that of serving from which the tokens to serve are hardly meant."""

MANY_TIMES = 10
"""Cost of serving over that of training from which the balance between them is worth a warning."""

UNSEEN = "its loss is predicted on the tokens of full attention, and its smaller cache keeps its price"
"""How a kind of attention counts whose effect on the loss no law predicts."""

DEVICE_YEARS = 10_000
"""Device-years of serving that few fleets have."""


def warnings_of(plan: Plan, ranking: Ranking, decision: Decision | None, by_all: Candidate | None = None) -> list[str]:
    """Extrapolation, repeated data, ends of the space, laws that do not apply or disagree, dropped draws.

    `by_all` is the best design that every member of the ensemble covers.
    """
    best = plan.best
    return [
        *_fits(ranking),
        *_sanity(plan, ranking),
        *allocation_doubts(plan),
        *_extrapolations(plan, best),
        *_reuse(best),
        *_attention(plan),
        *_ends(plan),
        *_dense_ends(plan),
        *ensemble_warnings(plan, ranking, by_all),
        *_dropped_draws(decision),
        *_learning_rate(best),
        *_beside_released(plan),
        *_serving(plan),
    ]


def _fits(ranking: Ranking) -> list[str]:
    """Fits of tables in another unit than parameters, tokens and nats per token, and what else is known of fits."""
    units = [
        f"{predictor.id} was given another unit: {note}"
        for predictor in ranking.predictors
        for note in predictor.unit_notes
    ]
    return units + [note for predictor in ranking.predictors for note in predictor.fit_notes]


def _sanity(plan: Plan, ranking: Ranking) -> list[str]:
    """Predictions far outside all runs, or worse than guessing."""
    guesses, lines = guesses_of(plan.space.vocab_size, ranking), []
    distances = [plan.best.loss[law].extrapolation for law in guesses if plan.best.loss[law].value is not None]
    known = [distance for distance in distances if distance is not None]
    if known and min(known) > MEANINGLESS:
        lines.append(
            "predictions are meaningless here: every law of the ensemble whose range is known is "
            f"{format_outside(min(known))} or more outside the runs it was fitted on"
        )
    if plan.confidence.out_of_range:
        ratio = plan.best.tokens / plan.best.params_active
        lines.append(
            f"{ratio:.3g} tokens per active parameter are far from those of released models: limit them with "
            "--min-tokens-per-active or --max-tokens-per-active"
        )
    for law, loss in worse_than_guessing(plan, guesses).items():
        lines.append(
            f"predictions are meaningless here: {law} gives the best design a loss of {loss:.3g}, worse than guessing, "
            f"ln(vocab_size) = {guesses[law]:.3g}"
        )
    return lines


def _extrapolations(plan: Plan, best: Candidate) -> list[str]:
    """Laws of the ensemble that are used far outside their fitted range."""
    far = {
        law: prediction.extrapolation
        for law, prediction in best.loss.items()
        if law in plan.ensemble and prediction.extrapolation is not None and prediction.extrapolation > FAR
    }
    return [
        f"{law} is used {format_outside(distance)} outside the range it was fitted on" for law, distance in far.items()
    ]


def _reuse(best: Candidate) -> list[str]:
    """The assumption behind the value of repeated tokens."""
    if best.epochs <= 1.001:
        return []
    new, less = (effective_tokens(best.tokens, best.unique_tokens, R_D * scale) for scale in (1, 1 / 3))
    worth = f"they count as {format_number(float(new))} new ones, with R_D at a third as {format_number(float(less))}"
    return [
        f"data is repeated {best.epochs:.2g} times; the value of repeated tokens was measured on dense models "
        f"(arXiv 2305.16264) and is assumed for MoE: {worth}"
    ]


def _attention(plan: Plan) -> list[str]:
    """Attention that saves compute in a way that no law sees."""
    config = plan.best.config
    if config.mla is not None:
        return [f"the best design has latent attention, which no law sees: {UNSEEN}"]
    if config.sliding_window is None or config.sliding_window >= plan.space.seq_len:
        return []
    pattern = config.sliding_pattern or ("window",)
    local = sum(kind != "full" for kind in pattern)
    layers = "every layer" if local == len(pattern) else f"{local} of {len(pattern)} layers"
    return [
        f"{layers} of the best design see {config.sliding_window} tokens only, which no law sees: {UNSEEN} (Gemma 3 "
        "found little loss, arXiv 2503.19786)"
    ]


def _ends(plan: Plan) -> list[str]:
    """Ends of the space, and fitted ranges, that bind."""
    space = [name for name in plan.binding if name.startswith("space.")]
    ranges = [name.removeprefix("range.") for name in plan.binding if name.startswith("range.")]
    lines = [
        f"the best design lies at the end of {AXES[name]} that were searched: the space limits it, not the laws"
        for name in space
    ]
    # A law that does not cover the best design did not limit it to its range.
    clipped = [law for law in ranges if plan.best.loss[law].value is not None]
    if clipped:
        lines.append(
            f"{', '.join(clipped)}: the optimum lies beyond the fitted range of experts, sparsity, granularity or "
            "tokens, and is clipped to the fitted range"
        )
    return lines


def _dense_ends(plan: Plan) -> list[str]:
    """The best dense design at an end of the sizes searched, beside which MoE may look better than it is."""
    dense = plan.best_dense
    if dense is None or not plan.best.is_moe or plan.budget.objective in COSTS:
        return []
    ends = space_ends(plan.space, dense.config.d_model, dense.config.n_layers, 0)
    named = [AXES[name] for name in ends if name != "space.aspect"]  # which no law sees
    if not named:
        return []
    return [
        f"the best dense design lies at the end of {' and '.join(named)} that were searched: a better one may lie "
        "beyond, and the share of its compute that MoE needs is then too small"
    ]


def _dropped_draws(decision: Decision | None) -> list[str]:
    """Bootstrap draws without a finite loss."""
    if decision is None or not decision.dropped:
        return []
    total = decision.dropped + len(decision.weight)
    return [f"{decision.dropped} of {total} bootstrap draws gave no finite loss for some design and were dropped"]


def _learning_rate(best: Candidate) -> list[str]:
    """A learning rate from far outside the runs of the rule that gives it."""
    rate = best.rates[0]
    if rate.distance is not None and rate.distance <= FAR:
        return []
    known = rate.distance is not None
    far = f"{format_outside(rate.distance)} outside its runs" if known else "from runs of unknown range"
    return [f"learning rate and batch come from {rate.title}, {far}: sweep the rate before relying on it"]


def _beside_released(plan: Plan) -> list[str]:
    """A learning rate far from those of released models of this size, although it is the preferred one."""
    far = apart_from_released(plan.best.learning_rate, plan.best.params_active, plan.released_rates)
    return [f"the learning rate is {far}: sweep it before relying on it"] if far else []


def _serving(plan: Plan) -> list[str]:
    """Serving that dwarfs training, that batches too few requests, or that needs an improbable fleet."""
    best, wanted = plan.best, plan.budget.serving
    if wanted is None or best.serving is None:
        return []
    lines, cost = [], best.cost or {}
    if cost.get("train") and cost.get("serve", 0) > MANY_TIMES * cost["train"]:
        lines.append(
            f"serving costs {cost['serve'] / cost['train']:.0f} times as much as training: longer training of a "
            "smaller model pays; raise the training budget, or set --within or --max-price"
        )
    if cost.get("train") and LITTLE * cost.get("serve", cost["train"]) < cost["train"] and wanted.price:
        lines.append(
            f"serving {format_number(wanted.tokens)} tokens costs {format_dollars(cost['serve'])}, less than a "
            f"thousandth of training: --serve-tokens are those of the model's whole life"
        )
    within = None if plan.lifetime is None else float(plan.lifetime["within"])
    lines += [*few_requests(best, wanted, within), *open_limits(best, wanted), *slow_without_limit(best, wanted)]
    longest = wanted.traffic.prompt + wanted.traffic.output
    if longest > plan.space.seq_len:
        lines.append(
            f"requests of {longest:,} tokens exceed the context of {plan.space.seq_len:,} tokens that the design is "
            "planned for: set --seq-len"
        )
    if wanted.price and cost.get("serve"):
        years = cost["serve"] / wanted.price / 8760
        if years > DEVICE_YEARS:
            lines.append(f"serving takes {format_number(years)} device-years of {wanted.device_words}")
    return lines
