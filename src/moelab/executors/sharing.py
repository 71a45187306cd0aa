"""How many of a study's runs share a device, and how: as asked for, or by measuring 1, 2, 4, ... of its own shapes.

What was measured is kept beside the runs (`sharing.json`), one number after another, so that an interrupted trial goes
on where it stopped and a later stage of the study measures only shapes that are new. What failed is tried again once
its reason may be gone: with another version of moelab or PyTorch, or where one more run's memory has become free.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from moelab.errors import InputError, MoelabError
from moelab.executors.local import cuda_devices
from moelab.executors.memory import free_memory, shared_memory
from moelab.executors.options import MOST_SHARED, ExecutorConfig, job_memory
from moelab.executors.order import Order, Sharing, Way
from moelab.executors.trial import steps_per_second
from moelab.files import read_json, sha256_json, write_json
from moelab.machine import usable_cores
from moelab.runs import RunConfig, run_columns
from moelab.version import __version__

FILE = "sharing.json"
_OF_SHAPE = (
    "seq_len", "batch_tokens", "micro_batch", "optimizer", "device", "precision", "threads", "dispatch", "kernels",
    "compile", "recompute",
)  # fmt: skip
"""What of a run's training decides its speed."""

_ASK = "import json, torch; print(json.dumps([torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0]]))"

Note = Callable[[str], None]
Rates = dict[Way, dict[int, float]]
"""Steps a second of one shape, by `share_by` and the number of runs."""


def choose_sharing(order: Order, executor: ExecutorConfig, note: Note | None = None) -> Sharing:
    """As the options ask; measured where they ask for `auto`, which is the default on CUDA with the executor local."""
    wanted = executor.share
    if wanted is None and order.needs.cuda and executor.kind == "local":
        wanted = "auto"
    if wanted is None:
        return Sharing()
    if wanted != "auto":
        return Sharing(by=executor.share_by or "streams", runs=wanted)
    configs = [RunConfig.parse(plain) for plain in order.configs]
    shapes = trial_shapes([config for config in configs if config.train.processes == 1])
    if len(configs) < 2 or not shapes:
        return Sharing()
    trial = Trial(order, Device.of(order.needs.cuda, executor.memory), note)
    ways: tuple[Way, ...] = ("processes", "streams") if executor.share_by is None else (executor.share_by,)
    found = [rates for rates in (trial.rates(config, ways) for config in shapes) if rates.get("processes")]
    if not found:
        return Sharing()
    chosen, gain = best(found)
    if note is not None:
        how = f"{chosen.runs} at a time by {chosen.by}" if chosen.runs > 1 else f"one at a time by {chosen.by}"
        note(f"runs share a device: {how}, {gain:.2f} times the runs an hour of one process each ({FILE})")
    return chosen


def share_out(order: Order, sharing: Sharing, executor: ExecutorConfig, workers: int) -> Order:
    """The order for so many workers: each takes its share of the runs and of a CPU's memory, if this machine's.

    A job elsewhere has the memory that it asks for: `executor.memory`, or the estimate, for each of its runs.
    """
    if sharing.by == "streams":
        each = -(-len(order.configs) // max(workers, 1))
        sharing = replace(sharing, runs=max(1, min(sharing.runs, each)))
    if order.needs.cuda:
        beside = -(-workers // max(cuda_devices(), 1)) if executor.kind == "local" else round(1 / (executor.gpus or 1))
        return replace(order, sharing=sharing, beside=max(beside, 1))
    if executor.kind != "local":
        order = replace(order, sharing=sharing)
        return replace(order, memory=job_memory(order, executor))
    free = executor.memory or free_memory()
    return replace(order, sharing=sharing, memory=None if free is None else free / max(workers, 1))


def trial_shapes(configs: list[RunConfig]) -> list[RunConfig]:
    """Of the runs' shapes, by FLOPs of a step, the largest, the middle one and the smallest."""
    shapes = sorted({shape_key(config): config for config in configs}.values(), key=_step_flops)
    middle = len(shapes) // 2
    return [shapes[index] for index in dict.fromkeys((len(shapes) - 1, middle, 0))] if shapes else []


def shape_key(config: RunConfig) -> str:
    """Equal for runs of equal speed."""
    train = config.train.to_dict()
    how = {name: train.get(name) for name in _OF_SHAPE}
    return sha256_json({"model": config.model.to_dict(), "train": how})[:16]


def best(shapes: Iterable[Rates]) -> tuple[Sharing, float]:
    """The way and number with the most runs an hour, and how many times those of one process each that is: the mean of
    logarithms over shapes. A number that a shape did not reach counts as the last that it did."""
    rates = list(shapes)
    ways = sorted({(runs, by) for each in rates for by, found in each.items() for runs in found})
    scored = []
    for runs, by in ways:
        gains = [_at(each, by, runs) / _at(each, "processes", 1) for each in rates]
        scored.append((sum(map(math.log, gains)) / len(gains), -runs, by == "streams", by))
    score, runs, _, by = max(scored)
    return Sharing(by=by, runs=-runs), math.exp(score)


def _at(rates: Rates, by: Way, runs: int) -> float:
    found = rates.get(by) or rates["processes"]
    return found[max((n for n in found if n <= runs), default=min(found))]


@dataclass(frozen=True, kw_only=True)
class Device:
    """What runs share: its name, its free bytes where they are known, whether NVIDIA's MPS runs there."""

    name: str
    free: float | None
    mps: bool = False

    @classmethod
    def of(cls, cuda: bool, memory: float | None) -> "Device":
        """This machine's. A process of its own asks a GPU, so that the caller holds none of its memory."""
        if not cuda:
            return cls(name=f"cpu, {usable_cores()} cores", free=memory or free_memory())
        done = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True)
        if done.returncode:
            raise MoelabError(f"executor: the GPU does not answer: {(done.stderr.strip().splitlines() or [''])[-1]}")
        name, free = json.loads(done.stdout.splitlines()[-1])
        return cls(name=name, free=memory or free, mps=mps_runs())


class Trial:
    """Measures shapes on a device and keeps what it found in a file."""

    def __init__(self, order: Order, device: Device, note: Note | None = None) -> None:
        self.path, self.data = Path(order.root).parent / FILE, order.data
        self.most, self.device, self.note = len(order.configs), device, note
        self.known = self._load()

    def rates(self, config: RunConfig, ways: Iterable[Way]) -> Rates:
        """Steps a second by each way, for 1, 2, 4, ... runs while they rise and memory lets them; one run of one
        process always."""
        found: Rates = {
            "processes": self._climb(config, "processes", self._fitting(config) if "processes" in ways else 1)
        }
        if "streams" in ways:
            found["streams"] = self._climb(config, "streams", self._fitting(config))
        return {by: each for by, each in found.items() if each}

    def _climb(self, config: RunConfig, by: Way, most: int) -> dict[int, float]:
        key = shape_key(config)
        entry = self.known["shapes"].setdefault(key, {"name": config.name or config.run_id, "trials": []})
        rates: dict[int, float] = {}
        runs = 1
        while runs <= most:
            row = next((r for r in entry["trials"] if (r["by"], r["runs"]) == (by, runs)), None)
            if row is None or self._may_succeed(row, config):
                kept = [each for each in entry["trials"] if each is not row]
                row = self._measure(config, Sharing(by=by, runs=runs))
                entry["trials"] = [*kept, row]
                write_json(self.path, self.known)
            if row["steps_per_second"] is None:
                break
            rates[runs] = row["steps_per_second"]
            if runs > 1 and rates[runs] <= rates[runs // 2]:
                break
            runs *= 2
        return rates

    def _measure(self, config: RunConfig, sharing: Sharing) -> dict[str, Any]:
        row: dict[str, Any] = {"by": sharing.by, "runs": sharing.runs, "steps_per_second": None, "runs_per_hour": None}
        try:
            rate = steps_per_second(config, self.data, sharing)
        except RuntimeError as error:
            return row | {"failed": str(error), "with": versions(), "free": self.device.free}
        hourly = 3600 * rate / config.train.steps
        if self.note is not None:
            self.note(f"trial: {sharing.runs} by {sharing.by}: {hourly:,.1f} runs an hour like {config.name}")
        return row | {"steps_per_second": rate, "runs_per_hour": hourly}

    def _may_succeed(self, row: dict[str, Any], config: RunConfig) -> bool:
        """Whether a trial failed for a reason that may be gone: not whenever the study goes on."""
        if row["steps_per_second"] is not None:
            return False
        before, now = row.get("free"), self.device.free
        freed = before is not None and now is not None and now - before >= shared_memory(config)
        return freed or row.get("with") != versions()

    def _fitting(self, config: RunConfig) -> int:
        """The most runs of this shape that memory holds, by count; at most those that are left."""
        free = self.device.free
        fitting = self.most if free is None else int(free // shared_memory(config))
        return max(1, min(self.most, fitting, MOST_SHARED))

    def _load(self) -> dict[str, Any]:
        """What was measured on a device like this one; anything else is measured anew."""
        fresh: dict[str, Any] = {"device": self.device.name, "mps": self.device.mps, "shapes": {}}
        try:
            known: dict[str, Any] = read_json(self.path, "sharing")
        except InputError:
            return fresh
        same = isinstance(known, dict) and all(known.get(name) == fresh[name] for name in ("device", "mps"))
        return known if same and isinstance(known.get("shapes"), dict) else fresh


def versions() -> dict[str, str]:
    """Those of the programs that a trial fails or succeeds by."""
    return {"moelab": __version__, "torch": version("torch")}


def mps_runs() -> bool:
    """Whether NVIDIA's MPS daemon is there, with which kernels of several processes run side by side."""
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists()


def _step_flops(config: RunConfig) -> float:
    return float(run_columns(config)["flops_per_token"]) * config.train.batch_tokens
