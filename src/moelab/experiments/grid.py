"""A grid over any fields of a run config: for every experiment without an experiment design of its own."""

import itertools
from typing import Any, Literal, Self

from pydantic import model_validator

from moelab.experiments.base import ExperimentDesign, Planned, Template, check_once

NO_PARENT = "a study's runs start from nothing, but for the branches of a ladder (design: ladder); leave it out"


class RunGrid(ExperimentDesign):
    """Some runs: dotted fields of a run config, each with a value or a list; lists are crossed.

    `zip` lists advance together instead: {"model.d_model": [32, 64], "model.d_ff": [88, 176]} is two runs. A field may
    be set in one place only.
    """

    design: Literal["grid"] = "grid"
    set: dict[str, Any] = {}
    zip: dict[str, list[Any]] = {}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({len(values) for values in self.zip.values()}) > 1:
            raise ValueError(f"zip: the lists of {self.name} must be equally long")
        for kind, values in (("set", self.set), ("zip", self.zip)):
            empty = next((key for key, value in values.items() if value == []), None)
            if empty is not None:
                raise ValueError(f"{kind}.{empty}: needs at least one value")
            parent = next((key for key in values if key.split(".")[0] == "parent"), None)
            if parent is not None:
                raise ValueError(f"{kind}.{parent}: {NO_PARENT}")
        for key, value in self.set.items():
            if isinstance(value, list):
                check_once(f"set.{key}", value)
        check_once(f"zip ({', '.join(self.zip)}): a run", list(zip(*self.zip.values(), strict=True)))
        seen: dict[str, str] = {}
        for kind, values in (("set", self.set), ("zip", self.zip)):
            for key, value in values.items():
                for leaf in _leaves(key, value):
                    if leaf in seen:
                        raise ValueError(f"{kind}.{key}: sets {leaf}, and so does {seen[leaf]}; keep one of them")
                for leaf in _leaves(key, value):
                    seen[leaf] = f"{kind}.{key}"
        return self

    def assignments(self) -> list[dict[str, Any]]:
        """One flat {dotted field: value} per run, without the seeds of replicates."""
        rows = [dict(zip(self.zip, values, strict=True)) for values in zip(*self.zip.values(), strict=True)] or [{}]
        crossed = {key: value if isinstance(value, list) else [value] for key, value in self.set.items()}
        products = [dict(zip(crossed, values, strict=True)) for values in itertools.product(*crossed.values())]
        return [{**row, **product} for row in rows for product in products]

    def plan(self, template: Template) -> list[Planned]:
        """The assignments as planned runs; one that sets its learning rate keeps it against the study's rule."""
        return [
            Planned(fields=fields, labels={"own_rate": "yes"} if _sets_rate(fields) else {})
            for fields in self.assignments()
        ]


def _leaves(key: str, value: Any) -> set[str]:
    """The dotted fields that a key sets, with a value, a mapping of further fields, or a list of either."""
    each = value if isinstance(value, list) else [value]
    inner = [pair for one in each if isinstance(one, dict) for pair in one.items()]
    plain = {key} if any(not isinstance(one, dict) for one in each) else set()
    return plain.union(*(_leaves(f"{key}.{name}", part) for name, part in inner))


def _sets_rate(fields: dict[str, Any]) -> bool:
    train = fields.get("train")
    return "train.learning_rate" in fields or (isinstance(train, dict) and "learning_rate" in train)
