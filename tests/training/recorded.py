"""A CUDA graph's behaviour on a CPU: operators are recorded with the places they read and write, and called again.

As in a graph, every number that is not in a tensor is that of the recording, and every tensor is a fixed place.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

Results = tuple[Tensor, Tensor]
_READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "bincount", "_unique2", "masked_select")


class Recording(TorchDispatchMode):
    """Notes every operator that is called; a value read on the host cannot be recorded."""

    def __init__(self, refused: tuple[str, ...] = _READS) -> None:
        super().__init__()
        self.refused = refused
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self._written: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in self.refused:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        with torch.no_grad():
            self._written += [(place, place.detach().clone()) for place in _written(func, args, kwargs)]
        found = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, found))
        return found

    @torch.no_grad()
    def undo(self) -> None:
        """Put back what the recorded call has written: recording a graph runs nothing."""
        for place, before in reversed(self._written):
            place.detach().copy_(before)

    @torch.no_grad()
    def repeat(self) -> None:
        """Call everything again, into the places of the recording."""
        for func, args, kwargs, found in self.calls:
            again = func(*args, **kwargs)
            for place, value in zip(_pytree.tree_leaves(found), _pytree.tree_leaves(again), strict=True):
                if isinstance(place, Tensor) and place.data_ptr() != value.data_ptr():
                    place.detach().copy_(value)


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operator writes in place."""
    found = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    return found


def capture(call: Callable[[], Results]) -> tuple[Callable[[], None], Results]:
    """What `capture_cuda` is on a GPU."""
    recording = Recording()
    with recording:
        results = call()
    recording.undo()
    return recording.repeat, results


def capture_until(operator: str) -> Callable[[Callable[[], Results]], tuple[Callable[[], None], Results]]:
    """A capture that fails at this operator."""

    def fail(call: Callable[[], Results]) -> tuple[Callable[[], None], Results]:
        recording = Recording((operator,))
        try:
            with recording:
                return recording.repeat, call()
        finally:
            recording.undo()

    return fail
