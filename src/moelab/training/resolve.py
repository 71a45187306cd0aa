"""Decide once, before a run is named, what its config left open: device, precision, threads, dispatch, kernels."""

from pathlib import Path
from typing import Any

import torch

from moelab.architecture import count_parameters
from moelab.architecture.memory import training_memory
from moelab.data import Dataset
from moelab.data.checks import check_data
from moelab.errors import InputError
from moelab.machine import machine_memory, usable_cores
from moelab.model import DISPATCHES, native, resolve_dispatch
from moelab.quantities import format_bytes, format_number
from moelab.runs import RunConfig, RunFolder, TrainConfig
from moelab.runs.train_config import AUTO

MUON_SPLIT = False
"""`train.muon_split` of new runs: two matrices were no better than one in twelve pairs of runs (docs/training.md)."""
_WIDE_ENOUGH_FOR_BF16 = 128
_WIDE_ENOUGH_FOR_THREADS = 64
_WIDE_ENOUGH_TO_COMPILE = 1024
"""Where compiling the layers was measured to help on CUDA (docs/benchmarks.md); it takes about ten seconds."""


def resolve_run(
    config: RunConfig, dataset: Dataset, elsewhere: bool = False, root: str | Path | None = None
) -> RunConfig:
    """The same run with every `auto` decided and the data's hash filled in.

    A config that is resolved already keeps its name: fields that came after 0.1 and that it lacks mean what 0.1 did.
    So it is where `root`, the folder of runs, holds the run as 0.1 named it; a branch takes them from its parent there.

    A run longer than its text repeats all of it. On a CPU bf16 is chosen only where the processor has bf16
    instructions and the model is at least 128 wide, and several threads only from width 64 on: below it they gain
    nothing (docs/benchmarks.md, threads). On CUDA layers from width 1,024 on are compiled in bf16, unless
    `train.compile` is given or nothing is `auto` any more. A run that is trained `elsewhere` may ask for a device that
    this machine lacks. Raises InputError when the config and the data or the machine do not fit.
    """
    train, data = config.train, config.data
    check_data(config, dataset)
    available = len(dataset.train) - 1
    if data.unique_tokens is None and train.tokens > available:
        data = data.replace(unique_tokens=available // train.seq_len * train.seq_len)
    _check_groups(config)
    device = train.device if elsewhere and train.device != AUTO else _device(train.device)
    if device == "cpu" and not elsewhere:
        _check_memory(config)
    precision = train.precision if train.precision != "auto" else _precision(config.model.d_model, device)
    most = max(1, usable_cores() // train.processes) if config.model.d_model >= _WIDE_ENOUGH_FOR_THREADS else 1
    threads = train.threads or most
    kernels = _kernels(train.kernels, device, precision, elsewhere)
    dispatch = _dispatch(config, device, precision, kernels)
    if train.compile == "blocks" and config.model.moe and (dispatch, precision) != ("grouped", "bf16"):
        allowed = "a dense model, or train.dispatch: grouped with train.precision: bf16"
        raise InputError(f"train.compile: blocks is for {allowed}; got dispatch {dispatch} in {precision}")
    compiles = train.compile
    if _left_open(train) and (device, precision) == ("cuda", "bf16") and _compiles_well(config, dispatch):
        compiles = "blocks"
    resolved = config.replace(
        data={**data.to_dict(), "manifest_hash": dataset.manifest_hash},
        train={
            **train.to_dict(),
            "device": device,
            "precision": precision,
            "threads": threads,
            "dispatch": dispatch,
            "compile": compiles,
        },
    )
    return resolved if config.resolved else _settle(resolved, {"kernels": kernels}, root)


def _settle(config: RunConfig, decided: dict[str, Any], root: str | Path | None) -> RunConfig:
    """The run with the fields that came after 0.1 written out: those `decided` here, else the defaults of new runs.

    A branch has its parent's, and a run that 0.1 began goes on without them.
    """
    fields = {**decided, **new_defaults(config.train)}
    before = None if root is None else _before(config, Path(root))
    if before is not None:
        fields = {name: getattr(before, name) for name in fields}
    unset = {name for name in fields if getattr(config.train, name) == TrainConfig.model_fields[name].default}
    return config.replace(train={**config.train.to_dict(), **{name: fields[name] for name in unset}})


def new_defaults(train: TrainConfig) -> dict[str, Any]:
    """What fields that came after 0.1 are in a new run that leaves them open."""
    return {"muon_split": MUON_SPLIT} if train.optimizer == "muon" else {}


def _before(config: RunConfig, root: Path) -> TrainConfig | None:
    """The training that decides a run's later fields: its parent's, or that of the same run where 0.1 began it."""
    folder = RunFolder(root / (config.parent.run if config.parent else config.run_id))
    if not folder.exists:
        return None
    found = folder.load_config().train
    of_0_1 = found.kernels == AUTO
    return found if config.parent is not None or of_0_1 else None


def _kernels(wanted: str, device: str, precision: str, elsewhere: bool) -> str:
    """The kernels of a run on this device: the compiled ones compute fp32 on a CPU and nothing else."""
    library, why_not = native.load()
    computes = device == "cpu" and precision == "fp32"
    if wanted == "native" and not computes:
        raise InputError(f"train.kernels: native kernels compute fp32 on a CPU, not {precision} on {device}")
    if wanted == "native" and library is None and not elsewhere:
        raise InputError(f"train.kernels: native was asked for, but there are none: {why_not}; allowed: torch, auto")
    if wanted != AUTO:
        return wanted
    return "native" if computes and library is not None else "torch"


def _dispatch(config: RunConfig, device: str, precision: str, kernels: str) -> str:
    """The MoE back end of a run on this device; `none` for a dense model."""
    wanted = config.train.dispatch
    if wanted not in (AUTO, "none", *DISPATCHES):
        raise InputError(f"train.dispatch: expected {AUTO} or one of {', '.join(DISPATCHES)}, got {wanted!r}")
    if config.model.moe is None:
        return "none"
    if wanted in (AUTO, "none"):
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        found = resolve_dispatch(config.model, device, dtype)
        return "sorted" if found == "native" and kernels == "torch" else found
    if wanted == "native" and kernels == "torch" and (device, precision) == ("cpu", "fp32"):
        others = ", ".join(name for name in DISPATCHES if name != wanted)
        raise InputError(f"train.dispatch: native needs train.kernels: native ({native.status()}); allowed: {others}")
    return wanted


def _left_open(train: TrainConfig) -> bool:
    """Whether the machine decides about compilation: it was not given, and the config has not been decided before."""
    return "compile" not in train.model_fields_set and AUTO in (train.device, train.precision, train.dispatch)


def _compiles_well(config: RunConfig, dispatch: str) -> bool:
    """Whether compilation was measured to help this kind of run: one process, wide, dense or token choice."""
    moe, train = config.model.moe, config.train
    if config.model.d_model < _WIDE_ENOUGH_TO_COMPILE or train.processes > 1 or train.transition is not None:
        return False
    return moe is None or (dispatch == "grouped" and moe.router == "token_choice" and moe.capacity_factor is None)


def _device(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("train.device: cuda was asked for, but PyTorch finds no CUDA device; allowed: cpu, auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def _precision(d_model: int, device: str) -> str:
    if device == "cuda":
        return "bf16"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has_bf16 and d_model >= _WIDE_ENOUGH_FOR_BF16 else "fp32"


def _check_memory(config: RunConfig) -> None:
    """Refuse a run whose weights, gradients and optimiser state this machine cannot hold, before any is asked for."""
    train, there = config.train, machine_memory()
    wholes = train.processes if train.parallel is None else 1
    state = training_memory(config.model, "fp32", train.optimizer).total * wholes
    if there is not None and state > there:
        copies = f", {wholes} times" if wholes > 1 else ""
        raise InputError(
            f"model: training its {format_number(count_parameters(config.model).params_total)} parameters takes "
            f"{format_bytes(float(state))} (weights, gradients, optimiser state{copies}); this machine has "
            f"{format_bytes(there)}"
        )


def _check_groups(config: RunConfig) -> None:
    """Refuse a batch or sequence that groups do not divide: the last one would be filled up with padding."""
    moe, train = config.model.moe, config.train
    if moe is None or not moe.traits.grouped:
        return
    members, name, what = train.seq_len, "train.seq_len", "tokens of a sequence"
    if (moe.grouping or "batch") == "batch":
        members = train.micro_batch or train.local_batch_size
        name = "train.batch_tokens" if train.micro_batch is None else "train.micro_batch"
        what = "sequences of a forward pass"
    if members % (moe.group_size or members):
        raise InputError(f"{name}: the {members} {what} must be a multiple of model.moe.group_size ({moe.group_size})")
    if moe.router == "expert_choice" and moe.group_size is None and members * moe.top_k % moe.n_experts:
        raise InputError(
            f"{name}: the {members} {what} (one group) x top_k must be a multiple of n_experts ({moe.n_experts})"
        )
