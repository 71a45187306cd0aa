"""A space of a few hundred tiny designs, and laws fitted to made-up runs in it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from moelab.architecture import count_flops, count_parameters
from moelab.architecture.memory import kv_elements
from moelab.fitting import FittedLaw
from moelab.fitting.fit import fit
from moelab.laws import Design
from moelab.planning import Budget, Plan, Space
from moelab.planning.lattice import Lattice, enumerate_designs
from moelab.planning.plan import plan

TINY = {
    "d_model": [32, 48, 64, 96],
    "n_layers": [2, 3, 4],
    "aspect": [8, 32],
    "head_dim": [8, 16],
    "heads_per_kv": 1,
    "ffn_ratio": 3,
    "n_experts": [4, 8, 16],
    "top_k": [1, 2, 4],
    "n_shared_experts": [0, 1],
    "n_dense_layers": [0, 1],
    "d_expert_step": 8,
    "d_ff_step": 8,
    "min_d_expert": 8,
    "vocab_size": 512,
    "seq_len": 128,
    "tie_embeddings": True,
}


@pytest.fixture(scope="session")
def tiny() -> Space:
    """Small enough to enumerate by hand."""
    return Space.parse(TINY)


def made_up_runs(space: Space, n: int = 24, noise: float = 0.004, seed: int = 0) -> dict[str, Any]:
    """Runs of random designs whose loss follows a simple rule, as a table."""
    rng = np.random.default_rng(seed)
    lattice = enumerate_designs(space)
    picked = lattice.take(rng.choice(len(lattice), n, replace=False))
    tokens = np.exp(rng.uniform(np.log(3e5), np.log(4e6), n))
    design = Design.of(picked.shape, tokens, space.seq_len)
    true = 1.5 + 30 * design.params_active**-0.33 * design.expert_ratio**-0.1 + 60 * tokens**-0.3
    return {
        "params_total": design.params_total,
        "params_active": design.params_active,
        "params_non_embedding": design.params_without_router,
        "params_active_non_embedding": design.params_active_without_router,
        "tokens": tokens,
        "sparsity": design.sparsity,
        "expert_ratio": design.expert_ratio,
        "n_experts": design.n_experts,
        "top_k": design.top_k,
        "granularity": design.granularity,
        "train_flops": design.train_flops,
        "loss": true * np.exp(rng.normal(0, noise, n)),
    }


@pytest.fixture(scope="session")
def made_up() -> Callable[..., dict[str, Any]]:
    """A function of a space that returns a table of runs in it."""
    return made_up_runs


@pytest.fixture(scope="session")
def fits(tiny: Space) -> list[FittedLaw]:
    """Two laws fitted to the same runs, with draws."""
    runs = made_up_runs(tiny)
    return [fit(runs, law, bootstrap=80, starts=2) for law in ("ludziejewski2025", "abnar2025")]


@pytest.fixture(scope="session")
def counted_exactly() -> Callable[[Lattice, int], None]:
    """Checks so many random designs: the vectorised counts equal the counts of the configs that they emit."""

    def check(lattice: Lattice, count: int) -> None:
        cached, seq_len = lattice.kv_elements(777), lattice.space.seq_len
        for i in np.random.default_rng(0).choice(len(lattice), count, replace=False):
            config = lattice.config(int(i))
            params, flops = count_parameters(config), count_flops(config, seq_len)
            assert lattice.params_total[i] == params.params_total, config
            assert lattice.params_active[i] == params.params_active
            assert lattice.params_non_embedding[i] == params.params_non_embedding
            assert lattice.params_active_non_embedding[i] == params.params_active_non_embedding
            assert lattice.flops_forward[i] == flops.forward, config
            assert lattice.flops_train[i] == flops.train
            assert cached[i] == kv_elements(config, 777)

    return check


@pytest.fixture(scope="session")
def coarse() -> Space:
    """Few enough designs to be searched whole."""
    return Space(
        d_model=(1024, 2048, 4096, 8192), n_layers=(12, 24, 48), head_dim=(128,), heads_per_kv=(4,), ffn_ratio=(4,),
        n_experts=(16, 64), top_k=(1, 4), n_shared_experts=(0,), n_dense_layers=(0,), vocab_size=32000,
    )  # fmt: skip


@pytest.fixture(scope="session")
def inside(coarse: Space) -> Plan:
    """A plan within the range of the laws that rank it."""
    return plan(Budget(flops=1e20, max_params=5e9), ["ludziejewski2025", "abnar2025"], coarse)
