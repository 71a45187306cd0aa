"""Time of one step and of one prompt as functions of the batch, for n shapes under one layout, calibrated.

A step takes a fixed time (kernels of every layer, exchanges between devices), a time for each request and each token,
and, for dense matrices and for routed experts, the larger of reading weights and computing. A MoE layer reads the
distinct experts its tokens touch, E (1 - (1 - K/E)^T) under uniform routing, and computes further rows for each.
Prompts are read in chunks that share a step with decoding (chunked prefill): with prompts of p tokens and answers of n,
b requests in flight begin b/n prompts a step.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.serving.products import ProductRates

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A step as a function of the batch b: fixed + b linear, the head, and dense matrices and experts on the tokens.
    All but the experts are those of the busiest of the `ranks`, as of max(b, ranks) requests.

    `moved` is the time of a rank's token between devices: part of `linear`, or where exchanges are overlapped of
    `waits` + b `sent`, beside all else, in two half batches: the larger of both counts. A share `begins` b of the steps
    (at most all) also reads `chunk` tokens of prompts; where one request's prompt has more chunks than its answer has
    steps, a step stands for `begins` of them. Each request has `width` tokens in a step, of which `produced` are kept
    on average. `prompts` is the part of `linear` that reads prompts. Steps without prompts replay a captured graph:
    each of the `ranks` pads its requests to the next of `graphs`. Where the calibration holds measured `products`, they
    give the time of every matrix.
    """

    fixed: Array
    linear: Array
    dense: Array
    read_dense: Array
    experts: Array
    read_experts: Array
    padding: Array
    head: Array
    read_head: Array
    log_miss: Array
    moved: Array
    prompts: Array
    waits: Array | None
    sent: Array | None
    begins: float
    chunk: float
    width: float
    produced: float
    graphs: Array | None
    ranks: int
    measured: "Measured | None"

    def take(self, index: Any) -> "Step":
        """The shapes `index`."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__[:14]}
        taken = {name: column[index] for name, column in columns.items() if column is not None}
        return replace(self, **taken, measured=None if self.measured is None else self.measured.take(index))

    def seconds(self, batch: Array) -> Array:
        """Mean seconds in which each of `batch` requests gets one token, its share of its prompt included (n,)."""
        return self.times(batch)[0]

    def token_seconds(self, batch: Array) -> Array:
        """Seconds between two tokens of a request (n,): it waits for prompts of the others, its own is over before."""
        return self.times(batch)[1]

    def times(self, batch: Array) -> tuple[Array, Array]:
        """`seconds` and `token_seconds`: engines measure the second as (answer's end - first token) / (tokens - 1)."""
        # Requests of the group, were every rank as full as the busiest.
        few = self.ranks > 1 and bool((batch < self.ranks).any())
        full = np.maximum(batch, self.ranks) if few else batch
        tokens, busy = (batch * self.width, full * self.width) if self.width != 1 else (batch, full)
        seconds = self.head_seconds(busy)
        seconds += self.fixed
        seconds += full * self.linear
        if self.graphs is None:
            alone = self.halved(tokens, busy)
        else:
            rows = self.padded(batch) * self.width
            alone = self.halved(rows, rows)
        seconds += alone
        if not self.chunk:
            seconds = seconds if self.waits is None else np.maximum(seconds, self.waits + full * self.sent)
            seconds = seconds if self.produced == 1 else seconds / self.produced
            return seconds, seconds
        share = batch * self.begins
        piece = np.maximum(self.chunk, share * self.chunk)
        of_all = tokens + piece
        of_one = busy + piece * (full / batch) if few else of_all
        steps = max(self.begins, 1.0)
        mixed = self.halved(of_all, of_one) if steps == 1 else steps * self.halved(of_all / steps, of_one / steps)
        np.minimum(share, 1.0, out=share)
        mixed -= alone
        mixed *= share
        seconds += mixed
        # A batch-th of what prompts take is the request's own prompt.
        mixed += full * self.prompts
        if steps > 1:
            mixed += self.fixed * (1 - 1 / steps)
        mixed /= batch
        between = seconds - mixed
        if self.waits is not None and self.sent is not None:
            exchanged = self.waits + full * self.sent
            own = (self.sent - self.moved * (self.width / self.ranks)) * full + self.waits * (1 - 1 / steps)
            np.maximum(seconds, exchanged, out=seconds)
            np.maximum(between, exchanged - own / batch, out=between)
        return (seconds, between) if self.produced == 1 else (seconds / self.produced, between / self.produced)

    def padded(self, batch: Array) -> Array:
        """Rows of a step of `batch` requests: each rank's next captured size; beyond the largest, its own (n,)."""
        if self.graphs is None:
            return batch
        each = np.ceil(batch / self.ranks - 1e-9)
        at = np.minimum(np.searchsorted(self.graphs, each), len(self.graphs) - 1)
        return np.asarray(np.maximum(self.graphs[at], each) * self.ranks)

    def head_seconds(self, tokens: Array) -> Array:
        """Seconds of the head for so many tokens (n,)."""
        seconds = tokens * self.head
        if self.measured is not None:
            return np.asarray(seconds * self.measured.dense_factor(tokens / self.ranks))
        return np.maximum(seconds, self.read_head, out=seconds)

    def halved(self, tokens: Array, busy: Array) -> Array:
        """Seconds of `products` (n,), of two half batches where exchanges are overlapped: each reads the weights."""
        return self.products(tokens, busy) if self.waits is None else 2 * self.products(tokens / 2, busy / 2)

    def products(self, tokens: Array, busy: Array) -> Array:
        """Seconds of dense matrices and routed experts for so many tokens, of the whole group for the experts, and
        `busy` for dense matrices: `ranks` times those of the busiest rank (n,)."""
        if self.measured is not None:
            return self.measured.seconds(self, tokens, busy)
        touched = np.exp(tokens * self.log_miss)
        np.subtract(1.0, touched, out=touched)
        computing = tokens * self.experts
        computing += touched * self.padding
        touched *= self.read_experts
        np.maximum(computing, touched, out=computing)
        np.multiply(busy, self.dense, out=touched)
        np.maximum(touched, self.read_dense, out=touched)
        computing += touched
        return computing


@dataclass(frozen=True, slots=True)
class Measured:
    """Measured rates of products, the rates that the step's times of dense matrices and experts assume, and the widths
    of experts: the square root of their two sizes (n,)."""

    rates: ProductRates
    dense: float
    experts: float
    widths: Array

    def take(self, index: Any) -> "Measured":
        """The shapes `index`."""
        return replace(self, widths=self.widths[index])

    def dense_factor(self, tokens: Array) -> Array:
        """What multiplies the time of dense matrices (n,)."""
        return np.asarray(self.dense / self.rates.dense_at(tokens))

    def seconds(self, step: Step, tokens: Array, busy: Array) -> Array:
        """Seconds of the dense matrices on `busy` tokens, and of the experts that tokens touch, each with its rows
        (n,)."""
        share, touched = -np.expm1(step.log_miss), -np.expm1(tokens * step.log_miss)
        each = tokens * np.divide(share, touched, out=np.ones_like(touched), where=touched > 0)
        experts = tokens * step.experts * (self.experts / self.rates.experts_at(tokens, each, self.widths))
        return np.asarray(busy * step.dense * self.dense_factor(busy / step.ranks) + experts)


def distinct_experts(n_experts: Any, top_k: Any, tokens: Any, frequencies: Any = None) -> Array:
    """Expected distinct experts that `tokens` tokens touch in one layer.

    E (1 - (1 - K/E)^b) under uniform routing; with measured `frequencies` (how often each expert is chosen, in any
    unit), the sum of 1 - (1 - f)^b with f scaled to sum to K.
    """
    if frequencies is not None:
        chosen = np.asarray(frequencies, float)
        chosen = np.minimum(chosen * top_k / chosen.sum(), 1.0)
        return np.asarray((1 - (1 - chosen) ** np.asarray(tokens)[..., None]).sum(axis=-1))
    share = np.asarray(top_k, float) / np.maximum(n_experts, 1)
    return np.asarray(n_experts * -np.expm1(np.asarray(tokens) * np.log1p(-np.minimum(share, 1 - 1e-15))))
