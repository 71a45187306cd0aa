"""The last step of a study: train the plan's recommendation and its baseline, above every budget that was fitted."""

from dataclasses import dataclass
from typing import Any

from moelab.architecture import ModelConfig
from moelab.data import Dataset
from moelab.fitting import Comparison
from moelab.planning import Candidate, Plan
from moelab.planning.baselines import strict_pair
from moelab.runs import RunConfig, RunRecord
from moelab.studies.build import build_run, with_rates
from moelab.studies.config import StudyConfig, VerifyStep
from moelab.studies.seeds import SeedNoise, mean_designs
from moelab.studies.training import StudyContext

ROLES = {
    "recommended": "recommended model",
    "best_dense": "best dense baseline",
    "best_moe": "best MoE design",
    "strict_dense": "strict dense baseline",
    "strict_moe": "recommended model on the strict baseline's data",
}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """One trained design: each law's prediction for one more run (value, low, high), and the measured record."""

    role: str
    label: str
    config: RunConfig
    record: RunRecord
    predicted: dict[str, dict[str, float]]

    @property
    def kind(self) -> str:
        """`dense` or `moe`."""
        return self.record.kind

    def to_dict(self) -> dict[str, Any]:
        """Plain data for verify.json."""
        names = ("params_total", "params_active", "tokens", "train_flops", "tokens_per_second")
        return {
            "role": self.role,
            "label": self.label,
            "run_id": self.record.run_id,
            "measured": self.record.loss,
            "predicted": self.predicted,
            **{name: getattr(self.record, name) for name in names},
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """MoE against dense as measured: `margin` = dense loss - MoE loss, each a mean over `seeds` runs.

    The evidence decides when the margin differs from zero at the 5 % level, from the seed noise by Student's t.
    """

    moe_loss: float
    dense_loss: float
    noise: SeedNoise | None
    seeds: int = 1

    @property
    def margin(self) -> float:
        return self.dense_loss - self.moe_loss

    @property
    def decided(self) -> bool:
        return self.noise is not None and abs(self.margin) > self.noise.spread(self.seeds, 0.95)


def compared_designs(plan: Plan) -> dict[str, Candidate]:
    """Role -> design: the recommendation, and the best design of the other kind."""
    if plan.best.is_moe:
        other, role = plan.best_dense, "best_dense"
    else:
        other, role = plan.best_moe, "best_moe"
    return {"recommended": plan.best} | ({role: other} if other is not None else {})


def verify(
    context: StudyContext, plan: Plan, comparison: Comparison, common: dict[str, Any], dataset: Dataset
) -> list[Verified]:
    """Train the compared designs with every seed of the study; pair each law's prediction with the measured loss."""
    study, step = context.study, context.study.verify
    if step is None:
        return []
    jobs = [(job, seed) for job in _jobs(step, plan, len(dataset.train) - 1) for seed in step.seeds]
    configs = [design_run(study, job, seed, str(context.folder.data), common) for job, seed in jobs]
    resolved = [context.resolve(config, dataset) for config in configs]
    trained = {config.run_id: (config, record) for config, record in context.train(resolved, dataset)}
    found = []
    for (job, _), wanted in zip(jobs, resolved, strict=True):
        if wanted.run_id in trained:
            config, record = trained[wanted.run_id]
            predicted = predictions(comparison, config)
            found.append(Verified(role=job.role, label=job.label, config=config, record=record, predicted=predicted))
    return found


@dataclass(frozen=True, kw_only=True)
class Job:
    """One design to train: its role in the comparison, its tokens, and how many of them are unique."""

    role: str
    label: str
    model: ModelConfig
    tokens: int
    unique_tokens: int | None = None


def _jobs(step: VerifyStep, plan: Plan, text_tokens: int) -> list[Job]:
    """The compared designs and, with `strict`, the strict pair, which repeats a text shorter than its tokens."""
    jobs = [
        Job(role=role, label=design.label, model=design.config, tokens=design.tokens)
        for role, design in compared_designs(plan).items()
    ]
    if step.strict and plan.best.is_moe:
        seq_len = int(plan.space.seq_len)
        for role, (model, tokens, unique) in zip(
            ("strict_dense", "strict_moe"), strict_pair(plan.best, seq_len), strict=True
        ):
            seen = int(unique) if unique <= text_tokens else None
            jobs.append(Job(role=role, label=ROLES[role], model=model, tokens=int(tokens), unique_tokens=seen))
    return jobs


def design_run(study: StudyConfig, job: Job, seed: int, data: str, common: dict[str, Any]) -> RunConfig:
    """The run of a planned design, with the study's own settings and no further tuning."""
    fields = {**common, "model": job.model.to_dict(), "train.tokens": job.tokens, "train.seed": seed}
    if job.unique_tokens is not None and job.unique_tokens < job.tokens:
        fields["data.unique_tokens"] = job.unique_tokens
    fields["labels.role"] = job.role
    return with_rates(study, [build_run(study, "verify", fields, 0, data)], data)[0]


def predictions(comparison: Comparison, config: RunConfig) -> dict[str, dict[str, float]]:
    """The prediction of every law that covers the design, with the interval of one more measured run (80 %)."""
    tokens = config.train.steps * config.train.batch_tokens
    found = {}
    for name, fitted in comparison.fits.items():
        if not fitted.variables_of(config.model, tokens, config.train.seq_len).covered.all():
            continue
        predicted = fitted.predict_model(config.model, tokens, config.train.seq_len, noise=True)
        values = (predicted.value, predicted.low, predicted.high)
        value, low, high = (float(each.reshape(-1)[0]) for each in values)
        found[name] = {"value": value, "low": low, "high": high}
    return found


def judge(verified: list[Verified], noise: SeedNoise | None) -> Verdict | None:
    """MoE against dense over the seeds trained; None where one of them is missing or diverged."""
    runs = [(each.config, each.record) for each in verified if not each.role.startswith("strict")]
    by_kind = {design.record.kind: design for design in mean_designs(runs)}
    moe, dense = by_kind.get("moe"), by_kind.get("dense")
    if moe is None or dense is None:
        return None
    return Verdict(moe_loss=moe.loss, dense_loss=dense.loss, noise=noise, seeds=min(moe.seeds, dense.seeds))
