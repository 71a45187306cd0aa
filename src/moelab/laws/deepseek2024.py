"""DeepSeek LLM (arXiv 2401.02954): learning rate, batch, and the split of compute into size and data."""

from moelab.laws.rules import Rule

RULES = (
    Rule(
        id="deepseek2024",
        title="DeepSeek LLM rules",
        citation="arXiv 2401.02954",
        mark="second-hand",
        needs=("train_flops",),
        form="lr = 0.3118 C^-0.125, batch tokens = 0.292 C^0.3271, M* = 0.1715 C^0.5243, D* = 5.8316 C^0.4757",
        meaning="C = M D with M = 72 n d^2 + 12 n d seq",
        ranges={"train_flops": None},
        learning_rate=lambda v: 0.3118 * v["train_flops"] ** -0.125,
        batch_tokens=lambda v: 0.292 * v["train_flops"] ** 0.3271,
        flops_per_token=lambda v: 0.1715 * v["train_flops"] ** 0.5243,
        tokens=lambda v: 5.8316 * v["train_flops"] ** 0.4757,
    ),
)
