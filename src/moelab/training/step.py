"""One optimiser step: forward and backward passes of a batch, the optimiser and the routers; on CUDA recorded once."""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moelab.model.feed_forward import shared_copies
from moelab.runs import TrainConfig
from moelab.training.balance import sum_loads, whole_counts
from moelab.training.graphs import Capture, Pieces, Recorded, Results
from moelab.training.optimizer import Optimizer
from moelab.training.processes import World
from moelab.training.replicated import Replicated


class Step:
    """Computes the steps of one model with its optimiser. With a `capture` they are recorded and repeated."""

    def __init__(
        self, train: TrainConfig, layout: Replicated, optimizer: Optimizer, world: World, capture: Capture | None
    ) -> None:
        self.train, self.layout, self.optimizer, self.world = train, layout, optimizer, world
        self._copies = torch.bfloat16 if train.compile != "none" and train.precision == "bf16" else None
        # A device reads the rate where it lies, so that a step alone and a repeated recording are the same.
        self._rate_on_device = train.device == "cuda" or capture is not None
        dtype = torch.float32 if train.device == "cuda" else torch.float64
        self._rate = torch.zeros((), device=train.device, dtype=dtype)
        self._recorded = None if capture is None else Recorded(self._whole, capture, forget=optimizer.clear_gradients)
        self._compute: Callable[[Pieces], Results] = self._recorded or self._whole

    def __call__(self, batch: tuple[NDArray[np.int64], NDArray[np.int64]], rate: float) -> Results:
        """One step at this learning rate: the mean cross-entropy of this process's share of the batch, and the norm of
        the gradients. A recording overwrites both at the next step."""
        self._rate.fill_(rate)
        return self._compute(self._pieces(batch))

    @property
    def failure(self) -> str | None:
        """Why steps were not repeated from a recording, where that was wanted."""
        return None if self._recorded is None else self._recorded.failure

    def _whole(self, pieces: Pieces) -> Results:
        """Loss, gradients, the optimiser's step and the routers': everything of a step that a device does."""
        model = self.layout.model
        # What a mesh gathers is in the computing precision already; a dense model has no experts to copy.
        alone = self.layout.sharded or model.config.moe is None
        with nullcontext() if alone else shared_copies(model, self._copies):
            loss = self._accumulate(pieces)
        norm = self.optimizer.step(self._rate if self._rate_on_device else float(self._rate))
        sum_loads(model, self.world)
        model.update_routers()
        return loss, norm

    def _accumulate(self, pieces: Pieces) -> Tensor:
        """Forward and backward passes of all pieces; the mean of their cross-entropy."""
        train = self.train
        with self._precision():
            counts = whole_counts(self.layout.model, train, [x for x, _ in pieces], self.world)
        loss = torch.zeros((), device=train.device)
        for number, (x, y) in enumerate(pieces, 1):
            with self.layout.piece(last=number == len(pieces)):
                with self._precision():
                    output = self.layout.loss(
                        x,
                        y,
                        logit_z_loss=train.logit_z_loss,
                        mtp_loss=train.mtp_loss,
                        balance_over="sequence" if train.balance_over == "sequence" else "batch",
                        whole_counts=counts,
                    )
                (output.total / (len(pieces) * self.layout.divisor)).backward()
            loss = loss + output.loss.detach() / len(pieces)
        return loss

    def _pieces(self, batch: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Pieces:
        """This process's share of the batch, cut into forward passes: inputs and targets."""
        share = self.world.share(self.train.batch_size)
        both = [self._to_device(part[share]) for part in batch]
        size = self.train.micro_batch or self.train.local_batch_size
        return list(zip(*(part.split(size) for part in both), strict=True))

    def _to_device(self, tokens: NDArray[np.int64]) -> Tensor:
        """The tokens where the model lies; a CUDA device fetches them while the host goes on."""
        tensor = torch.from_numpy(tokens)
        if self.train.device != "cuda":
            return tensor.to(self.train.device)
        return tensor.pin_memory().to("cuda", non_blocking=True)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.train.device, torch.bfloat16, enabled=self.train.precision == "bf16")
