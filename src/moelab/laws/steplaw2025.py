"""Step Law (arXiv 2503.04715): learning rate and batch from parameters and tokens."""

from moelab.laws.rules import Rule

RULES = (
    Rule(
        id="steplaw2025",
        title="Step Law",
        citation="arXiv 2503.04715",
        mark="read",
        needs=("params_non_embedding", "tokens"),
        form="lr = 1.79 N^-0.713 D^0.307, batch tokens = 0.58 D^0.571",
        meaning="N all non-vocabulary parameters, D tokens",
        ranges={"params_non_embedding": (0.21e9, 2.15e9), "tokens": (2e9, 100e9)},
        learning_rate=lambda v: 1.79 * v["params_non_embedding"] ** -0.713 * v["tokens"] ** 0.307,
        batch_tokens=lambda v: 0.58 * v["tokens"] ** 0.571,
    ),
)
