"""A router stands in one table: its name, its options, its counts and its module belong together."""

from typing import get_args

import pytest

from moelab.architecture import MoEConfig
from moelab.architecture.routers import OPTIONS, ROUTERS, Router
from moelab.errors import InputError

PLAIN = {"n_experts": 4, "top_k": 2, "d_expert": 8}


def test_every_router_has_its_traits_and_its_module() -> None:
    pytest.importorskip("torch")
    from moelab.model.moe import ROUTER_MODULES

    assert get_args(Router) == tuple(ROUTERS) == tuple(ROUTER_MODULES)


def test_options_belong_to_some_router() -> None:
    assert {name for traits in ROUTERS.values() for name in traits.options} == set(OPTIONS)
    assert set(OPTIONS) <= set(MoEConfig.model_fields)


@pytest.mark.parametrize("router", ROUTERS)
def test_options_of_other_routers_are_refused(router: str) -> None:
    values = {
        "capacity_factor": 1.0,
        "bias_update": 0.01,
        "grouping": "batch",
        "group_size": 2,
        "normalize_scores": True,
        "routing_vocab": 8,
        "n_group": 2,
        "topk_group": 1,
        "group_score": "max",
        "hash_layers": 1,
        "capacity_drop": "score",
        "input_gates": True,
        "temperature": 1.0,
        "learned_temperature": True,
        "separate_emit": True,
        "mixing": "hard",
    }
    assert set(values) == set(OPTIONS)
    for name in set(OPTIONS) - set(ROUTERS[router].options):
        needed = {"group_size": 2} if ROUTERS[router].mixes and name != "group_size" else {}
        extra = {"normalize_gates": False, "score": "sigmoid"} if name == "normalize_scores" else {}
        with pytest.raises(InputError, match=rf"{name}: the router {router} has no such option"):
            MoEConfig.parse({**PLAIN, "router": router, **needed, **extra, name: values[name]})
