"""Losses read on the host a few steps after the device formed them, so that the host never waits for the last step."""

from collections import deque

import torch
from torch import Tensor

_LAG = 4
"""Steps that a CUDA device may be behind the host before the host waits for it."""


class LateLosses:
    """Scalars by step: the last few may still be on a CUDA device; a CPU's are there at once.

    Several `processes` must learn of a diverged step at the same one, so each of them waits for every step.
    """

    def __init__(self, processes: int = 1) -> None:
        self._lag = _LAG if processes == 1 else 0
        self._waiting: deque[tuple[int, Tensor | float, torch.cuda.Event | None]] = deque()

    def put(self, step: int, loss: Tensor | float) -> None:
        """The loss of this step. From a CUDA device its copy to the host begins now."""
        if not isinstance(loss, Tensor) or not loss.is_cuda:
            self._waiting.append((step, loss, None))
            return
        copy = torch.empty((), dtype=loss.dtype, pin_memory=True)
        copy.copy_(loss, non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        self._waiting.append((step, copy, done))

    def take(self, all_of_them: bool) -> list[tuple[int, float]]:
        """Steps and losses, in order, that have not been taken yet: all, or those the host need not wait for."""
        ready = []
        while self._waiting:
            step, loss, done = self._waiting[0]
            if done is not None:
                if not all_of_them and len(self._waiting) <= self._lag:
                    break
                done.synchronize()
            self._waiting.popleft()
            ready.append((step, float(loss)))
        return ready
