"""Every launch of a Triton kernel that our operators make, compiled for a GPU that may be absent: one JSON line each.

    python kernel_launches.py 90 bfloat16 float32        # compute capability 9.0 (Hopper), and dtypes of the rows

The operators run on tensors of the device `meta`, and each launch stops behind Triton's compiler: what is compiled is
what Triton would compile there, with its own specialisation of dtypes, sizes and alignment. A line has the registers
and the stack of a thread (spilled registers lie there), the shared memory and the threads of a program.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from moelab.model.kernels import ops

WIDE = torch.float32
ROWS = [(64, 2, torch.int32), (100, 3, torch.int64), (1024, 8, torch.int32), (7168, 8, torch.int64)]
"""Width D, top K, dtype of the places: int32 by `place_rows`, int64 where processes share the experts out."""
WIDTHS = [24, 300, 512, 1024, 14336]
EXPERTS = [(8, 1), (64, 8), (300, 22)]
HEADS = [(2, 10), (8, 64), (16, 64), (16, 128), (32, 128), (64, 128), (128, 128), (8, 256)]
VOCABULARIES = [300, 512, 50304, 151936]
NVIDIA = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


def meta(*shape: int, dtype: torch.dtype = WIDE) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def launch_all(dtypes: list[torch.dtype]) -> None:
    """Every operator in these dtypes and every kind of shape that a model may have."""
    tokens = 256
    for dtype in dtypes:
        for width, top_k, index in ROWS:
            place = meta(tokens, top_k, dtype=index)
            ops.spread_rows._init_fn(meta(tokens, width, dtype=dtype), place)
            ops.combine_rows._init_fn(meta(tokens * top_k, width, dtype=dtype), place)
        for width in WIDTHS:
            h, gates = meta(tokens, 2 * width, dtype=dtype), meta(tokens)
            ops.gate_rows._init_fn(h, gates)
            ops.gate_rows_backward._init_fn(meta(tokens, width, dtype=dtype), h, gates)
        for heads, size in HEADS:
            rotate(heads, size, dtype)
        for vocabulary in VOCABULARIES:
            logits, targets = meta(tokens, vocabulary, dtype=dtype), meta(tokens, dtype=torch.int64)
            for gradient in (False, True):
                ops.cross_entropy_(logits, targets, -100, gradient)
    for n_experts, top_k in EXPERTS:
        ops.place_rows._init_fn(meta(tokens, top_k, dtype=torch.int64), meta(tokens, top_k), n_experts)


def rotate(heads: int, size: int, dtype: torch.dtype) -> None:
    """Without a norm, there and back, and with one over each head or over all of them."""
    x, table = meta(4, 4096, heads, size, dtype=dtype), (meta(4096, 1, size // 2), meta(4096, 1, size // 2))
    for back in (False, True):
        ops.rotary._init_fn(x, None, *table, 0.0, back)
    for width in {size, heads * size}:
        ops.rotary._init_fn(x, meta(width), *table, 1e-5, False)
        ops.rotary_norm_backward._init_fn(x, x, meta(width), *table, 1e-5)


class Compiler:
    """Stands for the driver of a GPU of this capability; `launched` gets what would run there."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)
        self.launched: dict[str, dict[str, Any]] = {}
        self.utils = SimpleNamespace()
        driver.set_active(self)
        run = JITFunction.run

        def compile_only(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
            compiled = run(kernel, *arguments, grid=grid, warmup=True, **options)
            self.note(compiled, kernel.__name__, arguments, options["num_warps"])

        JITFunction.run = compile_only

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self.target

    def note(self, compiled: Any, name: str, arguments: tuple[Any, ...], warps: int) -> None:
        if compiled.hash not in self.launched:
            self.launched[compiled.hash] = {
                "kernel": name,
                "dtype": str(arguments[0].dtype).removeprefix("torch."),
                "sizes": [each for each in arguments if isinstance(each, int)],
                "heads": arguments[1].shape[-2] if len(arguments[1].shape) == 4 else None,
                "shared": compiled.metadata.shared,
                "threads": 32 * warps,
                **used(compiled.asm["cubin"]),
            }


def used(cubin: bytes) -> dict[str, int]:
    """Registers and bytes of stack of a thread, as the assembler left them in the binary."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        found = subprocess.run(
            [str(NVIDIA / "cuobjdump"), "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    usage = re.search(r"REG:(\d+) STACK:(\d+)", found.stdout + found.stderr)
    assert usage is not None, found.stdout + found.stderr
    return {"registers": int(usage[1]), "stack": int(usage[2])}


def main(capability: int, dtypes: list[str]) -> None:
    """Compile all launches for one kind of GPU."""
    compiler = Compiler(capability)
    launch_all([getattr(torch, dtype) for dtype in dtypes])
    for row in compiler.launched.values():
        print(json.dumps({"triton": triton.__version__, "sm": capability, **row}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
