"""What the sections share: the device, sizes, timing, memory, rows of results, and models of the compared shapes."""

import gc
import importlib.util
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.model import LanguageModel, cross_entropy, kernels

Step = Callable[[], Any]


@dataclass(frozen=True)
class Bench:
    """Where and how large to measure. On a CPU (`dry`) only whether everything runs is of interest."""

    device: str
    dry: bool
    backend: str
    """What torch.compile compiles with."""

    @classmethod
    def open(cls, dry: bool) -> "Bench":
        """The CUDA device, or a CPU for a dry run. Checks what the products of this build can do."""
        if dry:
            torch.set_num_threads(1)
            return cls("cpu", True, "aot_eager")
        if not torch.cuda.is_available():
            raise SystemExit("PyTorch finds no CUDA device; --dry runs everything small on a CPU")
        bench = cls("cuda", False, "inductor")
        cross_entropy.WIDE_ADDMM = _wide_addmm_works(bench)
        return bench

    def pick(self, full: Any, dry: Any) -> Any:
        """A size: for a GPU, or for a dry run."""
        return dry if self.dry else full

    def emit(self, what: str, **row: Any) -> None:
        """One row of results; `ok` where it has a limit, False where it is beyond."""
        print(json.dumps({"what": what, **{k: _plain(v) for k, v in row.items()}}), flush=True)

    @contextmanager
    def guarded(self, what: str, **row: Any) -> Iterator[None]:
        """A failure within this block becomes a row, and the section goes on; what it held on the device is freed."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.emit(what, **row, failed=f"{type(error).__name__}: {str(error)[:300]}")
        gc.collect()
        if not self.dry:
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Until the device has done everything."""
        if not self.dry:
            torch.cuda.synchronize()

    def seconds(self, step: Step, repeats: int = 5, warm: int = 2) -> float:
        """The median time of `step`; short ones are queued several at a time, so that launching them is hidden."""
        repeats, warm = self.pick((repeats, warm), (1, 1))
        for _ in range(warm):
            step()
        together = 1 if self.dry else max(1, min(20, round(0.02 / self._timed(step, 1))))
        return statistics.median(self._timed(step, together) for _ in range(repeats))

    def _timed(self, step: Step, together: int) -> float:
        self.wait()
        began = time.perf_counter()
        for _ in range(together):
            step()
        self.wait()
        return (time.perf_counter() - began) / together

    def peak_bytes(self, step: Step) -> int:
        """What `step` allocates above what is there before it; 0 in a dry run."""
        if self.dry:
            step()
            return 0
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        self.wait()
        return torch.cuda.max_memory_allocated() - before

    def random(self, *shape: int, seed: int = 0, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
        """Normal numbers on the device, the same for every call with the same seed and shape."""
        values = torch.randn(*shape, generator=torch.Generator(self.device).manual_seed(seed), device=self.device)
        return (values * scale).to(dtype)

    def autocast(self) -> torch.autocast:
        """bf16 where PyTorch would."""
        return torch.autocast(self.device, torch.bfloat16)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Within this block PyTorch's own operators run instead of the Triton kernels."""
    before, kernels.AVAILABLE = kernels.AVAILABLE, False
    torch.compiler.reset()
    try:
        yield
    finally:
        kernels.AVAILABLE = before
        torch.compiler.reset()


def within(found: dict[str, float], limit: float) -> dict[str, Any]:
    """The errors with their limit, and whether all are within it (one that is no number is not)."""
    return {**found, "limit": limit, "ok": all(value <= limit for value in found.values())}


def has(package: str) -> bool:
    """Whether a peer can be measured."""
    return importlib.util.find_spec(package) is not None


def error(found: Tensor, exact: Tensor) -> float:
    """|found - exact| / |exact|, formed where `exact` lies."""
    exact = exact.double()
    return float((found.to(exact.device).double() - exact).norm() / exact.norm().clamp(min=1e-30))


def model_config(kind: str, dry: bool) -> ModelConfig:
    """The two compared shapes: dense of 304M parameters, and a MoE of 1.36B with 305M active."""
    moe = {"n_experts": 64, "top_k": 8, "d_expert": 512, "normalize_gates": False, "balance_loss": 0.01}
    sizes = {"vocab_size": 50304, "d_model": 1024, "n_layers": 12, "n_heads": 16, "d_ff": 4096}
    if dry:
        sizes = {"vocab_size": 320, "d_model": 32, "n_layers": 2, "n_heads": 2, "d_ff": 128}
        moe |= {"n_experts": 8, "top_k": 4, "d_expert": 32}
    extra = {"qk_norm": "none"} if kind == "dense" else {"qk_norm": "full", "moe": moe}
    return ModelConfig.parse({**sizes, "tie_embeddings": False, **extra})


def our_model(bench: Bench, config: ModelConfig) -> LanguageModel:
    """A model made on the device, with random weights of one size: drawing a billion on the CPU takes long."""
    with torch.device("meta"):
        model = LanguageModel(config, "grouped" if config.moe else "none")
    model.to_empty(device=bench.device)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if name.endswith("norm.weight") else parameter.normal_(0.0, 0.02)
    return model


def peer_model(config: ModelConfig, experts: str = "grouped_mm", seq_len: int = 2048) -> Any:
    """transformers' Llama for dense, OLMoE for MoE, of the same shape, randomly initialised."""
    import transformers

    shared = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "max_position_embeddings": seq_len,
        "tie_word_embeddings": False,
        "use_cache": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "attn_implementation": "sdpa",
    }
    if config.moe is None:
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(intermediate_size=config.d_ff, **shared))
    moe = {
        "intermediate_size": config.moe.d_expert,
        "num_experts": config.moe.n_experts,
        "num_experts_per_tok": config.moe.top_k,
        "norm_topk_prob": False,
    }
    model = transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**moe, **shared))
    model.set_experts_implementation(experts)
    return model


def text(bench: Bench, vocab_size: int, rows: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random tokens and the ones after them, (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(vocab_size, (rows, length + 1), generator=generator).to(bench.device)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def _wide_addmm_works(bench: Bench) -> bool:
    """Whether 16-bit factors can be added to an fp32 matrix in place."""
    left, right = bench.random(64, 32, dtype=torch.bfloat16), bench.random(32, 48, seed=1, dtype=torch.bfloat16)
    total = torch.ones(64, 48, device=bench.device)
    try:
        cross_entropy.WIDE_ADDMM = True
        cross_entropy.add_product(total, left, right)
        found = error(total, 1 + left.double() @ right.double())
        reason = f"error {found:.1e}"
    except (RuntimeError, NotImplementedError, TypeError) as failure:
        found, reason = 1.0, str(failure)[:300]
    if found > 1e-4:
        bench.emit("addmm into fp32 does not work here", reason=reason)
    return found <= 1e-4


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return value
