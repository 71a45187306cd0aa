"""The comparison itself: what counts as the same, and what rounding may decide."""

from collections.abc import Callable

import pytest
import torch

from moelab.errors import MoelabError
from moelab.export import check, choose_family
from moelab.export.canonical import canonical
from moelab.export.check import Check, compare
from moelab.model import LanguageModel

MakeModel = Callable[[str], LanguageModel]
TOKENS, TARGETS = torch.arange(48).view(2, 24) * 7 % 300, torch.arange(1, 49).view(2, 24) * 7 % 300


@torch.no_grad()
def compare_with(model: LanguageModel, change: torch.Tensor) -> Check:
    """Compare with logits that are ours plus a change."""
    same = canonical(model, choose_family(model.config))
    return compare("a library", same(TOKENS) + change, same, model, (TOKENS, TARGETS), exact=True)


def test_equal_logits_pass_and_losses_are_reported(make_model: MakeModel) -> None:
    found = compare_with(make_model("qwen3_moe"), torch.zeros(300))
    assert found.difference == 0
    assert found.compared == found.tokens == 48
    assert found.loss_trained == found.loss_exported
    assert found.to_dict()["library"] == "a library"


@pytest.mark.parametrize("change", [1e-3, -1e-3, float("nan"), float("inf")])
def test_other_logits_fail(change: float, make_model: MakeModel) -> None:
    wrong = torch.zeros(2, 24, 300)
    wrong[1, 3, 7] = change
    with pytest.raises(MoelabError, match="differs from the trained one: by a library"):
        compare_with(make_model("qwen3_moe"), wrong)


def test_after_a_tie_between_experts_nothing_is_compared(make_model: MakeModel) -> None:
    model = make_model("qwen3_moe")
    with torch.no_grad():
        # Experts 0 and 1 of one layer tie wherever they stand at the edge of the choice.
        router = model.model.layers[2].mlp.router.weight
        router[1] = router[0]
    same = canonical(model, choose_family(model.config))
    with torch.no_grad(), check.expert_choices(same) as clear:
        same(TOKENS)
    before = check.settled_tokens(clear, TOKENS.shape)
    assert not (before[:, 1:] & ~before[:, :-1]).any()
    found = compare_with(model, (~before)[..., None].float())
    assert 0 < found.compared == int(before.sum()) < found.tokens
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.router.weight.zero_()
    with pytest.raises(MoelabError, match="begins with a tie between experts; --no-check"):
        compare_with(model, torch.zeros(300))
