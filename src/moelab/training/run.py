"""A whole run: claimed, trained by one process or several, recorded; and the trained model read back."""

import sys
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from moelab.data import Dataset
from moelab.errors import InputError
from moelab.lease import DEFAULT, Terms
from moelab.machine import freed_memory_kept
from moelab.model import LanguageModel, build_model
from moelab.runs import RunConfig, RunFolder, RunRecord
from moelab.runs.config import Tracker
from moelab.runs.folder import CHECKPOINTS, CONFIG, WEIGHTS
from moelab.training.checkpoint import drop_checkpoints
from moelab.training.graphs import Capture
from moelab.training.kernels import computed_by
from moelab.training.log import open_log
from moelab.training.memory import reset_peak_memory
from moelab.training.monitor import Watcher
from moelab.training.processes import launch, started_by_torchrun, world
from moelab.training.record import make_record
from moelab.training.tensor_files import save_weights
from moelab.training.trainer import Trainer, to_the_end


def train_run(
    config: RunConfig,
    root: str | Path,
    dataset: Dataset,
    *,
    checkpoint_seconds: float = 30.0,
    watch: Watcher | None = None,
    terms: Terms = DEFAULT,
    log: Tracker | None = None,
) -> RunRecord:
    """Train one resolved run in its folder under `root` and write its record; a finished run is only read.

    A run interrupted at any moment continues from its newest whole checkpoint. A run whose loss stops being finite
    is recorded as `diverged` with no loss. A run of several `processes` is trained by those that torchrun started,
    else they are started here. `log` also writes the numbers for TensorBoard or W&B, in the run's folder. Raises
    InputError for a config that cannot be trained, Busy while another process trains the run: it holds a lease on it,
    on `terms`. Before the first step the data's files are hashed, where they changed since that was last done.
    """
    _check_buildable(config)
    everyone, wanted = world(), config.train.processes
    if everyone.size == 1 < wanted and started_by_torchrun() is None:
        return _train_in_processes(config, Path(root), dataset, watch, (checkpoint_seconds, terms, log))
    if everyone.size != wanted:
        field = "processes" if config.train.parallel is None else "parallel"
        raise InputError(f"train.{field}: the run wants {wanted} processes, but {everyone.size} were started")
    steps = run_steps(config, root, dataset, checkpoint_seconds, watch=watch, terms=terms, log=log)
    with freed_memory_kept(), computed_by(config.train):
        return to_the_end(steps)


def run_steps(
    config: RunConfig,
    root: str | Path,
    dataset: Dataset,
    checkpoint_seconds: float,
    *,
    watch: Watcher | None = None,
    terms: Terms = DEFAULT,
    log: Tracker | None = None,
    capture: Capture | None = None,
    shared: int | None = None,
) -> Generator[None, None, RunRecord]:
    """`train_run` for a run of as many processes as there are, stopping after each step: its lease is held until the
    end, or until the generator is closed. Whoever goes on with it does so within `computed_by`."""
    _check_buildable(config)
    everyone = world()
    folder = RunFolder.create(root, config) if everyone.main else RunFolder(Path(root) / config.run_id)
    holds: AbstractContextManager[Any] = folder.hold(terms) if everyone.main else nullcontext()
    with holds:
        if everyone.agree(folder.finished, config.train.device):
            return folder.load_record()
        if everyone.main:
            dataset.verify(always=config.train.verify_data == "always")
        reset_peak_memory()
        trainer = Trainer(config, folder, dataset, watch if everyone.main else None, capture=capture)
        trainer.restore()
        with _logging(trainer, log if everyone.main else None):
            evaluation, seconds = yield from trainer.steps(checkpoint_seconds)
        model = trainer.layout.whole_model()
        if everyone.main:
            folder.check()
            digest = save_weights(folder.path / WEIGHTS, model.state_dict())
            record = make_record(
                config,
                trainer.progress,
                evaluation,
                seconds,
                model=model,
                weights_sha256=digest,
                notes=dataset.notes(),
                shared=shared,
            )
            folder.save_record(record)
            drop_checkpoints(folder.path / CHECKPOINTS, config.train.keep_steps)
        everyone.agree(True, config.train.device)
    return folder.load_record()


def _check_buildable(config: RunConfig) -> None:
    if config.model.unbuildable:
        raise InputError(f"model: moelab counts but cannot train {config.model.unbuildable}")


def _train_in_processes(
    config: RunConfig, root: Path, dataset: Dataset, watch: Watcher | None, options: tuple[Any, ...]
) -> RunRecord:
    """Start the run's processes on this machine and wait for them."""
    folder = RunFolder.create(root, config)
    if folder.finished:
        return folder.load_record()
    shown = 0.0

    def tick() -> None:
        nonlocal shown
        numbers = folder.load_progress()
        if watch is not None and numbers.get("step", shown) != shown:
            shown = numbers["step"]
            watch(numbers)

    launch(config.train.processes, config.train.device, _work, (config, root, dataset.folder, *options), tick)
    return folder.load_record()


def _work(
    config: RunConfig, root: Path, data: Path, checkpoint_seconds: float, terms: Terms, log: Tracker | None
) -> None:
    """In each of the started processes."""
    train_run(config, root, Dataset.open(data), checkpoint_seconds=checkpoint_seconds, terms=terms, log=log)


@contextmanager
def _logging(trainer: Trainer, kind: Tracker | None) -> Iterator[None]:
    """Within this block the trainer logs."""
    if kind is None:
        yield
        return
    log = trainer.monitor.log = open_log(kind, trainer.folder, trainer.config, trainer.progress.step)
    try:
        yield
    finally:
        log.close()


def load_trained(path: str | Path) -> tuple[RunConfig, LanguageModel]:
    """A finished run's config and its model with the trained weights, in evaluation mode.

    After a transition that is the token-choice model, as its own `config` has it. Raises InputError naming the file
    where the weights are missing, damaged, replaced (the record holds their SHA-256) or those of another model. Where
    a record of 0.1 has no digest, a line on stderr notes it.
    """
    folder = RunFolder.open(path)
    config = folder.load_config()
    weights, note = folder.check_weights()
    if note is not None:
        print(f"note: {note}", file=sys.stderr)
    model = build_model(config.final_model, seed=0, dispatch=config.train.dispatch)
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, OSError) as error:
        raise InputError(f"run: {weights} is damaged ({error})") from None
    except RuntimeError:
        raise InputError(f"run: {weights} holds the weights of another model than {folder.path / CONFIG}") from None
    return config, model.eval()
