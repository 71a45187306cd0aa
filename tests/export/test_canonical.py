"""The canonical model computes what the trained one does, and its tensors map one to one to the class's."""

from collections.abc import Callable

import pytest
import torch

from moelab.errors import InputError, MoelabError
from moelab.export import choose_family
from moelab.export.canonical import canonical, check_dtype
from moelab.export.names import hugging_face_tensors, interleave, uninterleave
from moelab.model import LanguageModel, leak_free

TOKENS = torch.arange(48).view(2, 24) * 7 % 300


@torch.no_grad()
def test_it_computes_the_same_leak_free(case: tuple[str, LanguageModel]) -> None:
    model = case[1]
    same = canonical(model, choose_family(model.config))
    with leak_free(model):
        torch.testing.assert_close(same(TOKENS), model(TOKENS), rtol=1e-5, atol=1e-5)


def test_every_tensor_is_used_exactly_once(case: tuple[str, LanguageModel]) -> None:
    model = case[1]
    family = choose_family(model.config)
    same = canonical(model, family)
    # Numbered elements: each of ours stands in exactly one place of theirs.
    state, start = {}, 0
    for name, tensor in same.state_dict().items():
        state[name] = torch.arange(start, start + tensor.numel(), dtype=torch.float64).view(tensor.shape)
        start += tensor.numel()
    found = hugging_face_tensors(state, same.config, family)
    elements = torch.cat([tensor.flatten().double() for tensor in found.values()])
    assert torch.equal(elements.sort().values, torch.arange(start, dtype=torch.float64))


def test_a_tensor_without_a_place_is_an_error(make_model: Callable[[str], LanguageModel]) -> None:
    model = make_model("qwen3")
    state = {**model.state_dict(), "model.layers.0.mlp.extra": torch.zeros(1)}
    with pytest.raises(MoelabError, match=r"no place for model\.layers\.0\.mlp\.extra"):
        hugging_face_tensors(state, model.config, choose_family(model.config))


def test_reordering_for_neighbouring_pairs_has_a_way_back() -> None:
    rows = torch.arange(24.0).view(24, 1)
    assert interleave(rows, 6)[:6, 0].tolist() == [0, 3, 1, 4, 2, 5]
    assert torch.equal(uninterleave(interleave(rows, 6), 6), rows)


def test_routers_keep_fp32_and_the_rest_is_rounded(make_model: Callable[[str], LanguageModel]) -> None:
    model = make_model("glm-bias-scaled-dense")
    rounded = canonical(model, choose_family(model.config), "bf16").state_dict()
    for name, tensor in model.state_dict().items():
        exact = torch.equal(rounded[name], tensor)
        assert exact if ".mlp.router." in name else torch.equal(rounded[name], tensor.bfloat16().float())


def test_weights_that_do_not_fit_are_refused(make_model: Callable[[str], LanguageModel]) -> None:
    model = make_model("qwen3")
    with torch.no_grad():
        model.model.norm.weight[0] = 1e6
    canonical(model, choose_family(model.config), "bf16")
    with pytest.raises(MoelabError, match=r"model\.norm\.weight does not fit into"):
        canonical(model, choose_family(model.config), "f16")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(MoelabError, match="is not finite"):
        canonical(model, choose_family(model.config))


def test_unknown_dtypes_are_refused() -> None:
    with pytest.raises(InputError, match="fp32, bf16, f16, got 'int8'"):
        check_dtype("int8")
