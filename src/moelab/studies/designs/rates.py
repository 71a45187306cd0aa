"""Learning rate against batch, and repeats with other seeds: what a study has to know before it compares anything."""

from typing import Any, Literal, Self

from pydantic import model_validator

from moelab.config import Count
from moelab.errors import InputError
from moelab.studies.designs.base import Amounts, Budgeted, Counts, Planned, RunSource, Template


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


class Repeats(RunSource):
    """Runs of the entries `of`, planned before, again with other seeds: an estimate of the noise.

    `which`: all of them, the cheapest or dearest of each entry, or the one in the middle of its list.
    """

    design: Literal["repeats"] = "repeats"
    of: tuple[str, ...]
    seeds: Count = 2
    which: Literal["all", "middle", "first", "last"] = "middle"

    @model_validator(mode="after")
    def _once(self) -> Self:
        if self.replicates != 1:
            raise ValueError("replicates: say how many with `seeds`")
        return self

    def plan(self, template: Template) -> list[Planned]:
        """Copies with seeds from 1 on. Raises InputError naming an entry that does not stand before this one."""
        planned = []
        for name in self.of:
            runs = template.earlier.get(name)
            if not runs:
                known = ", ".join(template.earlier) or "none"
                raise InputError(f"of: no entry {name!r} stands before this one; those that do: {known}")
            places = {"all": range(len(runs)), "middle": [len(runs) // 2], "first": [0], "last": [len(runs) - 1]}
            for place in places[self.which]:
                planned += [self._again(runs[place], seed, name) for seed in range(1, self.seeds + 1)]
        return planned

    @staticmethod
    def _again(run: Planned, seed: int, name: str) -> Planned:
        seed += int(run.fields.get("train.seed", 0))
        return Planned(
            fields={**run.fields, "train.seed": seed},
            model=run.model,
            match=run.match,
            aims=run.aims,
            labels={**run.labels, "group": name},
        )
