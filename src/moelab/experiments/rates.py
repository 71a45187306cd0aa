"""Learning rate against batch, and repeats with other seeds: what a study needs before it compares designs."""

from typing import Any, Literal, Self

from pydantic import model_validator

from moelab.config import Count
from moelab.errors import InputError
from moelab.experiments.base import Amounts, Budgeted, Counts, ExperimentDesign, Planned, Template
from moelab.experiments.ladder import BRANCH_OF, TRUNK
from moelab.quantities import parse_count


class LearningRates(Budgeted):
    """Every learning rate with every batch, on the base's model or on each of `sizes`."""

    design: Literal["learning_rate"] = "learning_rate"
    learning_rate: Amounts
    batch_tokens: Counts = ()
    sizes: tuple[dict[str, Any], ...] = ({},)

    def plan(self, template: Template) -> list[Planned]:
        """Size by size, budget by budget; the number of steps follows the batch."""
        planned = []
        for size in self.sizes:
            model = template.model(size)
            for amount in self.amounts():
                for batch in self.batch_tokens or (template.batch_tokens,):
                    here = Template(base={**template.base, "train": {**template.base["train"], "batch_tokens": batch}})
                    for rate in self.learning_rate:
                        labels = {"size": f"d{model.d_model} L{model.n_layers}", "own_rate": "yes"}
                        run = amount.planned(here, model, self.min_steps, self.name, **labels)
                        run.fields.update({"train.learning_rate": rate, "train.batch_tokens": batch})
                        planned.append(run)
        return planned


class Repeats(ExperimentDesign):
    """Runs of the entries `of`, planned before, repeated with other seeds: an estimate of the noise.

    `which`: all of them, the first or last of each entry, or the one in the middle of its list. Seeds go on after the
    entry's own. A branch of a ladder is repeated with a trunk of its seed, one for all branches that leave it.
    """

    design: Literal["repeats"] = "repeats"
    of: tuple[str, ...]
    seeds: Count = 2
    which: Literal["all", "middle", "first", "last"] = "middle"

    @model_validator(mode="after")
    def _once(self) -> Self:
        if self.replicates != 1:
            raise ValueError("replicates: give the number of repeats as `seeds`")
        return self

    def plan(self, template: Template) -> list[Planned]:
        """Copies, a branch's trunk before it. Raises InputError naming an entry that does not stand before this one."""
        planned = []
        for name in self.of:
            entry = template.earlier.get(name)
            if not entry:
                known = ", ".join(template.earlier) or "none"
                raise InputError(f"of: no entry {name!r} stands before this one; those that do: {known}")
            runs = [run for run in entry if TRUNK not in run.labels]
            trunks = {run.labels[TRUNK]: run for run in entry if TRUNK in run.labels}
            places = {"all": range(len(runs)), "middle": [len(runs) // 2], "first": [0], "last": [len(runs) - 1]}
            for place in places[self.which]:
                run = runs[place]
                first = _seed(template, run) + template.replicates.get(name, 1)
                for seed in range(first, first + self.seeds):
                    trunk = trunks.get(run.labels.get(BRANCH_OF, ""))
                    again = [self._again(each, seed, name) for each in (trunk, run) if each is not None]
                    planned += [each for each in again if TRUNK not in each.labels or each not in planned]
        return planned

    @staticmethod
    def _again(run: Planned, seed: int, name: str) -> Planned:
        fields = {key: value for key, value in run.fields.items() if key != "train.seed"}
        trunk = {key: f"{run.labels[key]} s{seed}" for key in (TRUNK, BRANCH_OF) if key in run.labels}
        return Planned(
            fields={**fields, "train.seed": seed},
            model=run.model,
            match=run.match,
            aims=run.aims,
            labels={**run.labels, **trunk, "group": name},
        )


def _seed(template: Template, run: Planned) -> int:
    """The seed of a run's first replicate: its own, or the base's."""
    base = template.base.get("train") or {}
    train = {**base, **(run.fields.get("train") or {})}
    return parse_count(run.fields.get("train.seed", train.get("seed", 0)) or 0, "train.seed")
