"""How many steps a second runs of one shape make together on a device: a few seconds of real steps, nothing kept."""

import multiprocessing
import os
import tempfile
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from moelab.data import Dataset
from moelab.executors.local import thread_limits
from moelab.executors.order import Sharing
from moelab.machine import freed_memory_kept
from moelab.runs import RunConfig, RunFolder

TRIAL_SECONDS = 2.0
_WARM_STEPS = 8
"""Steps before the clock starts: the first ones compile kernels, and one records the graph."""
_PATIENCE = 300.0
"""Seconds that processes may take to begin; compiling layers takes a minute or two."""
_ENDLESS = 10**7


def steps_per_second(config: RunConfig, data: str, sharing: Sharing, seconds: float = TRIAL_SECONDS) -> float:
    """Steps a second of `sharing.runs` copies of a resolved run, all together, in fresh processes on one device.

    Raises RuntimeError with the reason where one of the processes fails, as where memory runs out.
    """
    context = multiprocessing.get_context("spawn")
    barrier, started = context.Barrier(sharing.processes), []
    try:
        for number in range(sharing.processes):
            receiver, sender = context.Pipe(duplex=False)
            copies = [copy.to_dict() for copy in _copies(config, sharing.turns, number)]
            how = (copies, data, sharing.by == "streams", seconds)
            process = context.Process(target=_main, args=(*how, barrier, sender), daemon=True)
            with thread_limits(max(config.train.threads, 1)):
                process.start()
            sender.close()
            started.append((process, receiver))
        return sum(_result(receiver, seconds) for _, receiver in started)
    finally:
        for process, receiver in started:
            process.kill()
            process.join()
            receiver.close()


def _copies(config: RunConfig, count: int, number: int) -> list[RunConfig]:
    """The run with other seeds, too long to end, without what ties it to steps or to a parent."""
    train = config.train.to_dict()
    for name in ("transition", "keep_steps", "warmup_steps", "decay_steps"):
        train.pop(name, None)
    train |= {"tokens": _ENDLESS * config.train.batch_tokens, "evaluations": 1}
    plain = {name: value for name, value in config.to_dict().items() if name != "parent"}
    seeds = range(number * count, (number + 1) * count)
    return [RunConfig.parse({**plain, "train": {**train, "seed": seed}}) for seed in seeds]


def _result(receiver: Connection, seconds: float) -> float:
    try:
        found = receiver.recv() if receiver.poll(_PATIENCE + seconds) else f"no result after {_PATIENCE:g} s"
    except EOFError:
        found = "a process died"
    if isinstance(found, str):
        raise RuntimeError(found)
    return float(found)


def _main(copies: list[Any], data: str, recorded: bool, seconds: float, barrier: Any, sender: Connection) -> None:
    """In each process: begin together with the others, count steps."""
    try:
        sender.send(_measure([RunConfig.parse(plain) for plain in copies], data, recorded, seconds, barrier))
    except Exception as error:
        barrier.abort()
        sender.send(" ".join(f"{type(error).__name__}: {error}".split()))
    sender.close()
    os._exit(0)  # nothing is left to write, and a device's queue may be long


def _measure(configs: list[RunConfig], data: str, recorded: bool, seconds: float, barrier: Any) -> float:
    from moelab.training import Trainer
    from moelab.training.turns import Place

    dataset = Dataset.open(data)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moelab-trial-")))
        stack.enter_context(freed_memory_kept())
        runs = []
        for config in configs:
            place = Place(config.train, recorded)
            with place.entered():
                trainer = Trainer(config, RunFolder(root / config.run_id), dataset, capture=place.capture)
            (root / config.run_id).mkdir()
            runs.append((place, trainer.steps(float("inf"))))

        def turn() -> None:
            for place, steps in runs:
                with place.entered():
                    next(steps)

        for _ in range(_WARM_STEPS):
            turn()
        _wait(configs[0])
        barrier.wait(_PATIENCE)
        began, turns = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            turn()
            turns += 1
        _wait(configs[0])
        return turns * len(runs) / (time.perf_counter() - began)


def _wait(config: RunConfig) -> None:
    """Until the device has done everything."""
    if config.train.device == "cuda":
        import torch

        torch.cuda.synchronize()
