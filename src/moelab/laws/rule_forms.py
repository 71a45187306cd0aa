"""The power laws behind the published rules for learning rate and batch, as laws that a sweep can be fitted with."""

from moelab.errors import InputError
from moelab.laws.law import Law
from moelab.laws.law_keys import law_from_formula
from moelab.printable import suggest

ACTIVATION = "+activation"
"""ID+activation is that rule with a power of the activation rate as a factor."""
RATE, BATCH = "learning_rate", "batch_tokens"
_STEP: dict[str, tuple[str, ...]] = {RATE: ("params_non_embedding", "tokens"), BATCH: ("tokens",)}
_COMPUTE: dict[str, tuple[str, ...]] = {RATE: ("train_flops",), BATCH: ("train_flops",)}
RULE_FORMS: dict[str, dict[str, tuple[str, ...]]] = {
    "steplaw2025": _STEP,
    "deepseek2024": _COMPUTE,
    "tian2025-dense": _COMPUTE,
    "tian2025-moe": _COMPUTE,
    "ludziejewski2025-lr": {RATE: ("params_active_non_embedding", "expert_ratio")},
    "marin2026": {RATE: ("tokens", "d_model", BATCH)},
}
"""By rule: the variables whose powers give each quantity. Marin's has the root of the batch: a held exponent of 0.5."""
_EXPONENTS = {
    "params_non_embedding": "alpha", "params_active_non_embedding": "alpha", "tokens": "beta", "train_flops": "gamma",
    "expert_ratio": "epsilon", "d_model": "kappa", "activation_rate": "delta",
}  # fmt: skip


def is_rule_form(name: str) -> bool:
    """Whether a sweep can be fitted with this rule."""
    return name.removesuffix(ACTIVATION) in RULE_FORMS


def rule_laws(name: str) -> dict[str, Law]:
    """By quantity (learning_rate, batch_tokens) the power law of a rule; `ID+activation` adds the activation rate.

    Raises InputError for a rule without a form.
    """
    if not is_rule_form(name):
        raise InputError(
            f"rule: {name!r} has no form to fit; {suggest(name, RULE_FORMS)}known: {', '.join(RULE_FORMS)}"
        )
    more = ("activation_rate",) if name.endswith(ACTIVATION) else ()
    return {
        quantity: _power_law(name, quantity, (*variables, *more))
        for quantity, variables in RULE_FORMS[name.removesuffix(ACTIVATION)].items()
    }


def _power_law(name: str, quantity: str, variables: tuple[str, ...]) -> Law:
    powers = [f"{each}**{'0.5' if each == BATCH else _EXPONENTS[each]}" for each in variables]
    return law_from_formula(
        {
            "id": f"{name}-{quantity}",
            "title": f"{name}, {quantity}",
            "formula": " * ".join(["a", *powers]),
            "variables": list(variables),
            "starts": {_EXPONENTS[each]: [-1.5, 1.5] for each in variables if each != BATCH},
        }
    )
