"""Rates of llama.cpp's own matrix products on this machine, from the ggml functions that xllamacpp's library exports.

    python benchmarks/ggml_rates.py

Single products in float32 and one thread, no model: dense matrices (ggml_mul_mat) and a layer's experts
(ggml_mul_mat_id), by rows; what a node of a graph costs, and attention. About ten seconds.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from moelab.model.machine_rates import EXPERTS, LARGE, MATRICES, ROWS, best_seconds
from moelab.serving.products import ProductRates

F32, I32 = 0, 26
"""ggml_type of tensors (ggml.h)."""
SLACK = 2**28
"""Bytes for headers, the graph and work of the products."""
_P, _I64 = ctypes.c_void_p, ctypes.c_int64


class Init(ctypes.Structure):
    """ggml_init_params (ggml.h)."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", _P), ("no_alloc", ctypes.c_bool))


SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_cpu_init": (None, []),
    "ggml_init": (_P, [Init]),
    "ggml_free": (None, [_P]),
    "ggml_new_tensor_3d": (_P, [_P, ctypes.c_int, _I64, _I64, _I64]),
    "ggml_get_data": (_P, [_P]),
    "ggml_add": (_P, [_P, _P, _P]),
    "ggml_soft_max_ext": (_P, [_P, _P, _P, ctypes.c_float, ctypes.c_float]),
    "ggml_mul_mat": (_P, [_P, _P, _P]),
    "ggml_mul_mat_id": (_P, [_P, _P, _P, _P]),
    "ggml_new_graph": (_P, [_P]),
    "ggml_build_forward_expand": (None, [_P, _P]),
    "ggml_graph_compute_with_ctx": (ctypes.c_int, [_P, _P, ctypes.c_int]),
}


@cache
def library() -> Any:
    """The library, with the types of its functions."""
    import xllamacpp

    found = ctypes.CDLL(str(next(Path(xllamacpp.__file__).parent.glob("*.so"))))
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    found.ggml_cpu_init()
    return found


NODES = 1000
"""Nodes of the graph that measures one; ggml's default graph holds 2,048."""


def launch(seconds: float) -> float:
    """Seconds of one node of a graph: additions of 16 numbers."""

    def make(ctx: Any) -> list[Any]:
        x, y = filled(ctx, 16), filled(ctx, 16)
        return [library().ggml_add(ctx, x, y) for _ in range(NODES)]

    return computed(make, 4 * 16 * NODES, seconds) / NODES


KEYS, HEADS, KV_HEADS, HEAD_DIM = 256, 8, 4, 64
"""The attention that is measured: llama.cpp pads its cache to 256 keys; heads as in serving_this_machine.py."""


def attention(tokens: int, seconds: float) -> float:
    """Seconds of one request's attention in one layer for so many of its tokens, without flash attention: scores,
    softmax, values (llama-graph.cpp, build_attn_mha). Caches of 64 are cycled through."""
    count, kept = 64, KEYS * KV_HEADS * HEAD_DIM

    def make(ctx: Any) -> list[Any]:
        lib, mask = library(), filled(ctx, KEYS, tokens)
        made = []
        for _ in range(count):
            keys, values = filled(ctx, HEAD_DIM, KEYS, KV_HEADS), filled(ctx, KEYS, HEAD_DIM, KV_HEADS)
            scores = lib.ggml_mul_mat(ctx, keys, filled(ctx, HEAD_DIM, tokens, HEADS))
            made.append(lib.ggml_mul_mat(ctx, values, lib.ggml_soft_max_ext(ctx, scores, mask, 0.125, 0.0)))
        return made

    floats = count * (2 * kept + tokens * HEADS * 2 * (KEYS + HEAD_DIM)) + KEYS * tokens
    return computed(make, 4 * floats, seconds) / count


def products(seconds: float) -> ProductRates:
    """FLOPs per second of dense matrices and of experts at each number of rows."""
    return ProductRates(
        rows=ROWS,
        dense=tuple(dense(rows, LARGE, seconds) for rows in ROWS),
        experts=tuple(experts(rows, LARGE // 2, seconds) for rows in ROWS),
    )


def dense(rows: int, width: int, seconds: float) -> float:
    """FLOPs per second of (rows, width) by (width, 4 width)."""
    count = max(MATRICES * 32 // max(rows, 32), 2)

    def make(ctx: Any) -> list[Any]:
        x = filled(ctx, width, rows)
        return [library().ggml_mul_mat(ctx, filled(ctx, width, 4 * width), x) for _ in range(count)]

    spent = computed(make, 4 * (count * (4 * width * width + 4 * width * rows) + width * rows), seconds)
    return count * 2.0 * rows * width * 4 * width / spent


def experts(rows: int, width: int, seconds: float) -> float:
    """FLOPs per second of experts of `width` by `width` (gate, up and down as three products)."""
    count = max(EXPERTS * 64 // max(rows, 64), 2)
    tokens = rows * count

    def make(ctx: Any) -> list[Any]:
        x, ids = filled(ctx, width, 1, tokens), library().ggml_new_tensor_3d(ctx, I32, 1, tokens, 1)
        numbers = (ctypes.c_int32 * tokens).from_address(library().ggml_get_data(ids))
        np.ctypeslib.as_array(numbers)[:] = np.arange(tokens) % count
        return [library().ggml_mul_mat_id(ctx, filled(ctx, width, width, count), x, ids) for _ in range(3)]

    spent = computed(make, 4 * (3 * count * width * width + 5 * width * tokens), seconds)
    return count * 2.0 * rows * 3 * width * width / spent


def filled(ctx: Any, *sizes: int) -> Any:
    """A float32 tensor of these sizes, the fastest first."""
    tensor = library().ggml_new_tensor_3d(ctx, F32, *sizes, *[1] * (3 - len(sizes)))
    numbers = (ctypes.c_float * int(np.prod(sizes))).from_address(library().ggml_get_data(tensor))
    np.ctypeslib.as_array(numbers)[:] = 0.01
    return tensor


def computed(make: Callable[[Any], list[Any]], size: int, seconds: float) -> float:
    """The least seconds of computing what `make` puts into a graph; tensors take `size` bytes."""
    lib = library()
    ctx = lib.ggml_init(Init(size + SLACK, None, False))
    graph = lib.ggml_new_graph(ctx)
    for tensor in make(ctx):
        lib.ggml_build_forward_expand(graph, tensor)

    def run() -> None:
        # The work buffer of each call is taken from the context, and given back with it.
        assert lib.ggml_graph_compute_with_ctx(ctx, graph, 1) == 0

    try:
        return best_seconds(run, seconds)
    finally:
        lib.ggml_free(ctx)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    found = products(0.2)
    print(f"a node {launch(0.2) * 1e6:.2f} us")
    print(f"attention of 1 and of 64 tokens: {attention(1, 0.2) * 1e6:.0f} and {attention(64, 0.2) * 1e6:.0f} us")
    for rows, first, second in zip(found.rows, found.dense, found.experts, strict=True):
        print(f"{rows:5d} rows: dense {first / 1e9:6.1f} GFLOPs, experts {second / 1e9:6.1f} GFLOPs")
