"""Li et al.'s calculator against the paper's exact row, and its solver against the calculator."""

import pytest

from moelab.architecture import ModelConfig, MoEConfig, count_parameters, li_size, li_solve
from moelab.errors import InputError

ROW = ModelConfig(
    vocab_size=65536,
    d_model=1408,
    n_layers=16,
    n_heads=11,
    n_kv_heads=11,
    head_dim=128,
    d_ff=3904,
    n_dense_layers=1,
    moe=MoEConfig(n_experts=89, top_k=1, d_expert=352, n_shared_experts=1, d_shared=352, normalize_gates=False),
)


def test_the_papers_exact_row() -> None:
    size = li_size(ROW, 2048)
    assert (size.params, size.params_active, size.flops_per_token) == (2_150_612_992, 187_973_632, 1_681_489_920)


def test_our_exact_count_adds_routers_and_norms_only() -> None:
    count = count_parameters(ROW)
    assert count.params_non_embedding - count.router - count.norm == li_size(ROW, 2048).params


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.35, 0.5])
@pytest.mark.parametrize("params", [0.5e9, 2.15e9, 7e9])
def test_the_solver_meets_size_rate_and_compute(params: float, rate: float) -> None:
    found = li_solve(params, rate, 1e21)
    assert found.size.params == pytest.approx(params, rel=0.02)
    assert found.size.activation_rate == pytest.approx(rate, rel=0.05)
    assert found.tokens * found.size.flops_per_token == pytest.approx(1e21)
    assert found.config.moe is not None
    assert found.config.moe.d_shared == found.config.moe.top_k * found.config.moe.d_expert
    assert 60 < found.size.zeta < 130


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="activation_rate: must lie between 0 and 1"):
        li_solve(1e9, 1.2, 1e21)
    with pytest.raises(InputError, match="params: must be above 0 and at most"):
        li_solve(1e30, 0.2, 1e21)
    with pytest.raises(InputError, match="full multi-head attention"):
        li_size(ROW.replace(n_heads=12, n_kv_heads=4, d_model=1536), 2048)
