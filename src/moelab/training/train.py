"""One run trained in one call: `moelab train` from Python."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moelab.data import Dataset
from moelab.errors import MoelabError
from moelab.runs import RunConfig, RunRecord
from moelab.runs.folder import CHECKPOINTS
from moelab.runs.load_run import read_run_config
from moelab.training.adopt import adopt as adopt_run
from moelab.training.adopt import find_kin
from moelab.training.display import follow
from moelab.training.log import check_log
from moelab.training.processes import GOES_ON, join, leave, lost_partner, started_by_torchrun
from moelab.training.resolve import resolve_run
from moelab.training.run import train_run


def train(
    config: RunConfig | Mapping[str, Any] | str | Path,
    out: str | Path = "runs",
    *,
    changes: Sequence[str] = (),
    processes: int | None = None,
    checkpoint_seconds: float = 30.0,
    log: str | None = None,
    quiet: bool = True,
) -> RunRecord:
    """Train one model. Called again after an interruption, it continues from the newest checkpoint and ends the same.

    Args:
        config: A RunConfig, the path of a run YAML, or its plain data (model, data, train).
        out: Folder that gets a folder per run, named by the run's id.
        changes: Fields to change, as "train.seed=1".
        processes: Data-parallel processes on this machine; None: as the config has it (`train.parallel` names a mesh),
            or those torchrun started.
        checkpoint_seconds: Seconds between checkpoints.
        log: Also log to "tensorboard" or "wandb", in the run's folder.
        quiet: Show no progress on stderr.

    Returns:
        The RunRecord: loss in nats per token (None where it diverged), bits per byte, tokens, FLOPs, tokens per second.
        A finished run is only read.

    Raises:
        InputError: A wrong field, data that is not there, a machine that lacks what the config asks for.
        MoelabError: A failure of the work: a full disk, a process that died, a run that another process is training.

    After the example of `moelab.prepare`:

    >>> import moelab
    >>> moe = {"n_experts": 4, "top_k": 2, "d_expert": 16}
    >>> model = {"vocab_size": 300, "d_model": 16, "n_layers": 1, "n_heads": 2, "moe": moe}
    >>> how = {"tokens": 2048, "seq_len": 32, "batch_tokens": 256, "eval_tokens": 512}
    >>> record = moelab.train({"name": "tiny", "model": model, "data": {"path": "data/tiny"}, "train": how})
    >>> record.status, record.tokens
    ('finished', 2048)
    """
    changes = [*changes, *([] if processes is None else [f"train.processes={processes}"])]
    run = read_run_config(config, changes, out)
    return train_here(run, out, processes=processes, checkpoint_seconds=checkpoint_seconds, log=log, quiet=quiet)[1]


def train_here(
    run: RunConfig,
    out: str | Path,
    *,
    processes: int | None = None,
    checkpoint_seconds: float = 30.0,
    log: str | None = None,
    quiet: bool = True,
    adopt: str | None = None,
) -> tuple[RunConfig, RunRecord, bool]:
    """`train` for a config that was read: the resolved config, the record, and whether this is the process that reports
    (of several that torchrun started, the first). `adopt` names an unfinished run to go on from; without it, runs that
    could be are named on stderr."""
    tracker = check_log(log) if log else None
    started = started_by_torchrun()
    if started and processes is None and run.train.parallel is None:
        run = run.replace(train={**run.train.to_dict(), "processes": started})
    dataset = Dataset.open(run.data.path)
    run = resolve_run(run, dataset, root=out)
    if adopt is not None:
        run = adopt_run(run, Path(out), adopt, hold=os.environ.get("RANK", "0") == "0")
    elif started is None:
        for kin in find_kin(run, Path(out)):
            print(f"note: {kin}; continue it with moelab train CONFIG --adopt {kin.run_id}", file=sys.stderr)
    try:
        main = True if started is None else join(run.train.device).main
        with follow(run, quiet=quiet or not main) as watch:
            record = train_run(run, out, dataset, checkpoint_seconds=checkpoint_seconds, watch=watch, log=tracker)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_continues(run, Path(out))) from None
    except RuntimeError as error:
        if started is None or not lost_partner(error):
            raise
        raise MoelabError(f"process {os.environ['RANK']} of {started} lost another one; {GOES_ON}") from error
    finally:
        leave()
    return run, record, main


def _continues(run: RunConfig, out: Path) -> str:
    """What the same call continues with after an interruption."""
    folder = out / run.run_id
    steps = [int(path.name) for path in (folder / CHECKPOINTS).glob("*") if path.name.isdigit()]
    if not steps:
        return f"no checkpoint was written yet; the same command starts {folder} from its first step"
    return f"the same command continues {folder} from its checkpoint at step {max(steps):,} of {run.train.steps:,}"
