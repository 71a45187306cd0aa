"""Activation recomputation: a layer's backward pass computes its forward pass once more, with the routes it took.

Recomputed scores may differ in the last digit, and a near-tied token would go to other experts than those whose output
the loss was formed from. So what `topk` chose is kept: K numbers a token. `full` keeps a layer's input and its routes,
`selective` the results of its matrix products too (arXiv 2205.05198).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch.utils.checkpoint import (
    SAC_IGNORED_OPS,
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

_aten = torch.ops.aten
ROUTES = (_aten.topk.default,)
PRODUCTS = (_aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten.baddbmm.default, _aten._grouped_mm.default)
_NAMES = (
    torch.ops.profiler._record_function_enter_new.default,
    torch.ops.profiler._record_function_exit._RecordFunction,
)
"""Names of FSDP's work for profilers: a repetition may have more of them than the pass that it repeats."""
SAC_IGNORED_OPS.update(_NAMES)
_AGAIN: ContextVar[bool] = ContextVar("again", default=False)


def recomputing() -> bool:
    """Whether the pass that runs now is a repetition: what counts tokens must not count them again."""
    return _AGAIN.get()


def recomputed(kind: str, forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """forward(*inputs, **options), most of whose activations are computed again when gradients need them."""
    kept = ROUTES if kind == "full" else (*ROUTES, *PRODUCTS)

    def policy(_: Any, op: Any, *__: Any, **___: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if op in kept else CheckpointPolicy.PREFER_RECOMPUTE

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        first, again = create_selective_checkpoint_contexts(policy)
        return first, _repetition(again)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **options)


@contextmanager
def _repetition(inner: AbstractContextManager[Any]) -> Iterator[None]:
    token = _AGAIN.set(True)
    try:
        with inner:
            yield
    finally:
        _AGAIN.reset(token)
