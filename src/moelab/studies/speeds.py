"""Training speeds of a study's shapes: from finished runs, else from a short probe on this machine."""

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moelab.data import Dataset
from moelab.errors import InputError, MoelabError
from moelab.executors.probe import probe_text, tokens_per_second
from moelab.runs import RunConfig, run_columns
from moelab.runs.folder import find_runs
from moelab.studies.steps import shape

_MOST_PROBES = 6
"""Number of probed shapes per kind (dense or MoE); FLOPs per second are interpolated between them."""

Points = list[tuple[float, float]]
"""(log FLOPs per token, log FLOPs per second) of the shapes measured."""


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Measured speeds, FLOPs per second by kind. `missing` is the reason where there is none."""

    points: dict[str, Points]
    origin: str
    missing: str | None = None

    def seconds(self, config: RunConfig, flops: float) -> float | None:
        """Seconds for the given training FLOPs of a run, with its evaluations; None where no speed is known."""
        columns = run_columns(config)
        points = self.points.get(columns["kind"]) or next(iter(self.points.values()), None)
        if not points:
            return None
        x, y = zip(*sorted(points), strict=True)
        rate = math.exp(float(np.interp(math.log(columns["flops_per_token"]), x, y)))
        train = config.train
        evaluation = min(train.evaluations, train.steps) * train.eval_tokens * columns["flops_per_token"] / 3
        return (flops + evaluation) / rate


def measure(
    configs: list[RunConfig], runs: Path, dataset: Dataset | None, report: Callable[[str], None] | None = None
) -> Speeds:
    """The speeds of these runs' shapes. `report` receives a line per probe."""
    shapes = {shape(config): config for config in configs}
    known = _finished(runs, shapes) if runs.is_dir() else {}
    chosen = _spread({key: config for key, config in shapes.items() if key not in known})
    points: dict[str, Points] = {}
    for key, rate in known.items():
        _add(points, shapes[key], rate)
    missing = None
    with ExitStack() as stack:
        text = dataset or (stack.enter_context(probe_text()) if chosen else None)
        for number, config in enumerate(chosen, 1):
            try:
                rate = tokens_per_second(config, text) if text is not None else 0.0
            except (InputError, MoelabError) as error:
                missing = f"{config.name}: {error}"
                continue
            _add(points, config, rate)
            if report is not None:
                report(f"probe {number}/{len(chosen)}: {config.name}: {rate:,.0f} tokens/s")
    sources = [f"{len(known)} shapes of finished runs"] if known else []
    probes = sum(len(each) for each in points.values()) - len(known)
    sources += [f"{probes} of {len(shapes)} shapes probed on this machine, one at a time"] if probes else []
    return Speeds(points={} if missing else points, origin=", ".join(sources), missing=missing)


def _finished(runs: Path, shapes: dict[str, RunConfig]) -> dict[str, float]:
    """Mean tokens per second of finished runs by shape, for the shapes in `shapes`. Runs that shared a device are left
    out: their time is their neighbours' too."""
    found: dict[str, list[float]] = {}
    wanted = {_bare(config): key for key, config in shapes.items()}
    for folder in find_runs(runs):
        if folder.finished:
            key = wanted.get(_bare(folder.load_config()))
            record = folder.load_record() if key is not None else None
            if key is not None and record is not None and record.shared is None:
                found.setdefault(key, []).append(record.tokens_per_second)
    return {key: float(np.mean(values)) for key, values in found.items()}


def _bare(config: RunConfig) -> str:
    """A shape without the settings that are chosen when a run is resolved."""
    loose = {**config.train.to_dict(), "device": "auto", "precision": "auto", "threads": 0, "dispatch": "auto"}
    return shape(config.replace(train=loose))


def _spread(shapes: dict[str, RunConfig]) -> list[RunConfig]:
    """At most `_MOST_PROBES` of each kind, evenly spread over FLOPs per token, with the smallest and the largest."""
    chosen: list[RunConfig] = []
    for kind in ("dense", "moe"):
        own = [config for config in shapes.values() if run_columns(config)["kind"] == kind]
        own.sort(key=lambda config: float(run_columns(config)["flops_per_token"]))
        most = min(len(own), _MOST_PROBES)
        chosen += [own[round(i * (len(own) - 1) / max(most - 1, 1))] for i in range(most)]
    return chosen


def _add(points: dict[str, Points], config: RunConfig, rate: float) -> None:
    columns = run_columns(config)
    per_token = float(columns["flops_per_token"])
    points.setdefault(str(columns["kind"]), []).append((math.log(per_token), math.log(rate * per_token)))
