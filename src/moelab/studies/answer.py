"""The study's answer in sentences, with its uncertainty, stating where the evidence does not decide."""

from statistics import fmean

from moelab.architecture import ModelConfig
from moelab.planning import Candidate, Plan
from moelab.quantities import format_flops, format_number
from moelab.studies.analysis import Analysis
from moelab.studies.config import PlanStep, StudyConfig
from moelab.studies.findings import Finding
from moelab.studies.findings.base import judge_margin
from moelab.studies.seeds import SeedNoise, Trained, mean_designs
from moelab.studies.stages import StageOutcome
from moelab.studies.verify import ROLES, Verdict, Verified


def answer(
    study: StudyConfig,
    stages: list[StageOutcome],
    findings: list[Finding],
    analysis: Analysis,
    verified: list[Verified],
    verdict: Verdict | None,
    best: str,
) -> list[str]:
    """The findings; then the recommendation, its predicted and measured losses, and which kind is ahead.

    `best` is the answer of a study that only trains runs.
    """
    sentences = [sentence for finding in findings for sentence in finding.sentences]
    sentences += [_stage(stage) for stage in stages]
    if analysis.plan is not None and study.plan is not None:
        weights = analysis.comparison.weights if analysis.comparison else {}
        sentences += [_headline(analysis.plan), _recommendation(study.plan, analysis.plan), _expectation(analysis.plan)]
        sentences += measurements(verified, weights)
        sentences.append(decision(verdict) if study.verify is not None else "")
    return [sentence for sentence in sentences if sentence] or [best]


def best_design(trained: list[Trained], noise: SeedNoise | None) -> str:
    """The design with the lowest loss, and the margin to the next."""
    designs = sorted(mean_designs(trained), key=lambda design: design.loss)
    first, seeds = designs[0], f", the mean of {designs[0].seeds} seeds" if designs[0].seeds > 1 else ""
    text = f"The lowest loss, {first.loss:.3f} nats per token{seeds}, is that of {first.config.name}"
    if len(designs) == 1:
        return f"{text}; no other design was trained."
    second = designs[1]
    margin = judge_margin(second.loss - first.loss, noise, first.seeds, second.seeds)
    return f"{text}, of {len(designs)} designs; the next, {second.config.name}, is behind by {margin}."


def _stage(outcome: StageOutcome) -> str:
    winner = outcome.winner
    text = f"Stage {outcome.stage.name} chose {describe_model(winner.model)}, of {len(outcome.ranked)} designs"
    return text + ("." if outcome.margin is None else f", {outcome.margin:.3f} nats ahead of the next.")


def describe_model(model: ModelConfig) -> str:
    """An architecture as text."""
    body = f"{model.n_layers} layers of width {model.d_model}, {model.n_heads} heads"
    moe = model.moe
    if moe is None:
        return f"{body}, dense feed-forward of width {model.d_ff}"
    shared = f" and {moe.n_shared_experts} shared" if moe.n_shared_experts else ""
    dense = f", the first {model.n_dense_layers} dense" if model.n_dense_layers else ""
    return (
        f"{body}, {moe.n_experts} experts of width {moe.d_expert} of which each token uses {moe.top_k}{shared}{dense}"
    )


def _headline(plan: Plan) -> str:
    best = plan.best
    tokens, total, active = (format_number(n) for n in (best.tokens, best.params_total, best.params_active))
    if best.is_moe:
        return f"Train a Mixture-of-Experts model of {total} parameters, {active} of them active, on {tokens} tokens."
    return f"Train a dense model of {total} parameters on {tokens} tokens."


def _recommendation(step: PlanStep, plan: Plan) -> str:
    best = plan.best
    return (
        f"This costs {step.flops_times:g} times the compute of the largest run fitted "
        f"({format_flops(best.train_flops, 2)} FLOPs, full square) on {describe_model(best.config)}."
    )


def _expectation(plan: Plan) -> str:
    best = plan.best
    other = plan.best_dense if best.is_moe else plan.best_moe
    text = f"The fitted laws predict a loss of {_mean(best)} nats per token (80 % intervals)"
    if other is not None:
        kind = "dense" if best.is_moe else "MoE"
        text += f", and of {_mean(other)} for the best {kind} model of the same budget"
    if plan.p_moe_beats_dense is not None:
        text += f"; MoE beats dense in {plan.p_moe_beats_dense:.0%} of the bootstrap draws"
    if plan.near_equal > 1:
        text += f". {plan.near_equal - 1:,} other designs are near-equal to the recommended one"
    return text + "."


def _mean(design: Candidate) -> str:
    interval = design.mean_loss
    if interval is None:
        values = [p.value for p in design.loss.values() if p.value is not None]
        return f"{sum(values) / len(values):.3f}" if values else "unknown"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def measurements(verified: list[Verified], weights: dict[str, float]) -> list[str]:
    """A sentence per trained design: the losses it reached, beside the prediction of the laws with these weights."""
    roles = dict.fromkeys(each.role for each in verified)
    return [_measurement([each for each in verified if each.role == role], weights) for role in roles]


def _measurement(runs: list[Verified], weights: dict[str, float]) -> str:
    """One design, trained with one seed or several, beside its prediction."""
    name, losses = ROLES[runs[0].role], [each.record.loss for each in runs if each.record.loss is not None]
    if not losses:
        return f"The {name} was trained and diverged."
    mean, reached = fmean(losses), " and ".join(f"{loss:.3f}" for loss in losses)
    seeds = f" with {len(losses)} seeds" if len(losses) > 1 else ""
    text = f"The {name} was trained{seeds} and reached {reached}"
    if len(losses) < len(runs):
        text += f" ({len(runs) - len(losses)} of {len(runs)} seeds diverged)"
    values = {law: predicted["value"] for law, predicted in runs[0].predicted.items()}
    if not values:
        return f"{text}; none of the fitted laws applies to it."
    ensemble = sum(weights[law] * value for law, value in values.items()) / sum(weights[law] for law in values)
    error = ensemble / mean - 1
    verdict = "equal to" if abs(error) < 5e-4 else f"{abs(error):.1%} {'better' if error > 0 else 'worse'} than"
    average = f" (mean {mean:.3f})" if len(losses) > 1 else ""
    return (
        f"{text}{average}, {verdict} the ensemble's {ensemble:.3f} "
        f"(the laws predicted {min(values.values()):.3f} to {max(values.values()):.3f})."
    )


def _measured_on(verdict: Verdict) -> str:
    return "smaller runs" if verdict.seeds == 1 else "smaller runs and on these"


def decision(verdict: Verdict | None) -> str:
    """Which kind has the lower measured loss, by how much, and whether seeds explain that."""
    if verdict is None:
        return "MoE and dense could not be compared: one of them is missing or diverged."
    winner = "MoE" if verdict.margin > 0 else "dense"
    text = f"The measured loss of {winner} is lower by {abs(verdict.margin):.3f} nats"
    if verdict.noise is None:
        return text + "; no run was repeated, so it is unknown how much of that is chance."
    noise = verdict.noise
    spread = noise.spread(verdict.seeds)
    text += (
        f" (80 % interval {abs(verdict.margin) - spread:+.3f} to {abs(verdict.margin) + spread:+.3f}, from a seed "
        f"noise of {noise.deviation:.3f} with {noise.freedom} degrees of freedom, measured on {_measured_on(verdict)})"
    )
    bound = f"{noise.spread(verdict.seeds, 0.95):.3f} at the 5 % level"
    if verdict.decided:
        return f"{text}; that is more than seeds explain ({bound}), so the difference is significant."
    return f"{text}; that is no more than seeds explain ({bound}): the evidence does not decide between them."
