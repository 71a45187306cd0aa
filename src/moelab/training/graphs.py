"""A step recorded once and repeated: on CUDA a graph, which starts all kernels of a small model's step at once.

What is recorded reads and writes fixed places: the batch and the learning rate are copied into them before each
repetition, and the optimiser counts its steps on the device. No value of the host is part of a recording.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Pieces = list[tuple[Tensor, Tensor]]
Results = tuple[Tensor, Tensor]
Compute = Callable[[Pieces], Results]
Capture = Callable[[Callable[[], Results]], tuple[Callable[[], None], Results]]
"""Records a call without running it; returns what repeats it, and the places of its results."""

WARM_STEPS = 3
"""Steps before the recording: kernels are compiled, workspaces and optimiser state allocated (as in PyTorch's notes on
CUDA graphs)."""


def capture_cuda(call: Callable[[], Results]) -> tuple[Callable[[], None], Results]:
    """A CUDA graph of the call, on the current stream, which must not be the default one."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        results = call()
    return graph.replay, results


class Recorded:
    """Steps of `compute`: the first ones as they are, then one recording repeated; as they are where it cannot be made.

    `failure` is why not; it is for the run's notes. Every call takes pieces of the same shapes. `forget` clears what an
    unfinished recording leaves behind.
    """

    def __init__(self, compute: Compute, capture: Capture, forget: Callable[[], None]) -> None:
        self.compute, self.capture, self.forget = compute, capture, forget
        self.failure: str | None = None
        self._seen = 0
        self._inputs: Pieces = []
        self._repeat: Callable[[], None] | None = None
        self._results: Results | None = None

    def __call__(self, pieces: Pieces) -> Results:
        """One step; the results are overwritten by the next one."""
        self._seen += 1
        if self._seen <= WARM_STEPS or self.failure is not None:
            return self.compute(pieces)
        if self._repeat is None and not self._record(pieces):
            return self.compute(pieces)
        for place, piece in zip(self._inputs, pieces, strict=True):
            for target, tokens in zip(place, piece, strict=True):
                target.copy_(tokens, non_blocking=True)
        assert self._repeat is not None
        assert self._results is not None
        self._repeat()
        return self._results

    def _record(self, pieces: Pieces) -> bool:
        """Whether the step could be recorded. Nothing of it has run then."""
        self._inputs = [(x.clone(), y.clone()) for x, y in pieces]
        try:
            self._repeat, self._results = self.capture(lambda: self.compute(self._inputs))
        except RuntimeError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.failure = f"steps are not repeated as a CUDA graph: {lines[0]}"
            self.forget()
        return self.failure is None
