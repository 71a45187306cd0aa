"""Rules for learning rate, batch size and the split of compute: closed forms beside the laws, with the same marks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from moelab.errors import InputError
from moelab.laws.law import Array, Mark, Values
from moelab.notebook import Shown

Form = Callable[[Values], Array]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Rule(Shown):
    """One paper's rules. `needs` names the inputs; what a rule does not give is None."""

    id: str
    title: str
    citation: str
    mark: Mark
    needs: tuple[str, ...]
    form: str
    meaning: str
    ranges: Mapping[str, tuple[float, float] | None]
    learning_rate: Form | None = None
    batch_tokens: Form | None = None
    tokens: Form | None = None
    flops_per_token: Form | None = None

    def apply(self, **values: Any) -> dict[str, Array]:
        """Everything the rule gives, from `needs` by name. Raises InputError naming an input that is missing or not
        positive."""
        missing = [name for name in self.needs if name not in values]
        if missing:
            raise InputError(f"{self.id}: needs {', '.join(missing)}")
        numbers = {name: np.asarray(values[name], float) for name in self.needs}
        for name, number in numbers.items():
            if not (number > 0).all():
                raise InputError(f"{name}: must be positive, got {number.min():g}")
        forms = {
            "learning_rate": self.learning_rate,
            "batch_tokens": self.batch_tokens,
            "tokens": self.tokens,
            "flops_per_token": self.flops_per_token,
        }
        return {name: form(numbers) for name, form in forms.items() if form is not None}
