"""Many runs, trained by the workers of an executor, monitored and collected from the folder they write to.

Several studies may train the same runs: a run belongs to the worker that holds its lease; every study waits for all.
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

from moelab.errors import MoelabError
from moelab.executors.board import Board, Observer, RunMonitor
from moelab.executors.local import local_workers, open_local
from moelab.executors.options import ExecutorConfig
from moelab.executors.order import Needs, Order, Pool
from moelab.executors.ray import cluster, open_ray, ray_workers
from moelab.executors.sharing import choose_sharing, share_out
from moelab.executors.slurm import check_slurm, open_slurm, slurm_workers
from moelab.notebook import Shown
from moelab.runs import RunConfig, RunFolder, RunRecord

POLL_SECONDS = 0.3
_POLL_PER_RUN = 0.002
_EXIT_SECONDS = 20.0
MOST_DEATHS = 5
"""A run is given up after this many deaths of its workers without progress, a study after as many early deaths."""

_OPEN: dict[str, Callable[[Order, ExecutorConfig], AbstractContextManager[Pool]]] = {
    "local": open_local,
    "ray": open_ray,
    "slurm": open_slurm,
}
_WORKERS: dict[str, Callable[[Needs, ExecutorConfig, int], int]] = {
    "local": local_workers,
    "ray": ray_workers,
    "slurm": slurm_workers,
}


@contextmanager
def session(executor: ExecutorConfig) -> Iterator[None]:
    """What an executor keeps open over all steps of a study. Raises InputError where it is not available here."""
    if executor.kind == "slurm":
        check_slurm(executor)
    if executor.kind != "ray":
        yield
        return
    with cluster(executor):
        yield


@dataclass(frozen=True, kw_only=True, repr=False)
class Outcome(Shown):
    """(config, record) of the runs that finished, in the order given, and the reason for each run that failed."""

    trained: list[tuple[RunConfig, RunRecord]]
    failed: dict[str, str]


def run_all(
    configs: list[RunConfig],
    root: Path,
    data: Path,
    *,
    executor: ExecutorConfig,
    workers: int = 0,
    name: str = "study",
    observe: Observer | None = None,
    note: Callable[[str], None] | None = None,
) -> Outcome:
    """Train every resolved config that is not finished yet.

    A worker that dies is replaced and its run continues from its checkpoint. A run that fails does not stop the
    others. `workers` 0 lets the executor choose. `note` gets a line on how runs share a device. Raises InputError for
    a finished run that was tampered with, MoelabError where the executor cannot work at all.
    """
    monitor = RunMonitor(configs, root, executor.patience, executor.order == "listed")
    monitor.clear_failures()
    board = monitor.look()
    if observe is not None:
        observe(board)
    if monitor.open:
        order = _order(configs, monitor, root, data, executor, name)
        sharing = choose_sharing(order, executor, note)
        with _OPEN[executor.kind](order, executor) as pool:
            most = _WORKERS[executor.kind](order.needs, executor, workers)
            if sharing.processes > 1:
                most = _WORKERS[executor.kind](order.needs, executor, most * sharing.processes)
            pool.order = share_out(order, sharing, executor, most)
            board = _Supervisor(monitor=monitor, pool=pool, most=most).until_done(observe)
    return Outcome(
        trained=[(c, RunFolder(root / c.run_id).load_record()) for c in configs if c.run_id not in board.failed],
        failed=board.failed,
    )


@dataclass(kw_only=True)
class _Supervisor:
    """Keeps workers at work until every run is finished or failed."""

    monitor: RunMonitor
    pool: Pool
    most: int
    deaths: dict[str, tuple[int, str]] = field(default_factory=dict)
    early_deaths: int = 0

    def until_done(self, observe: Observer | None) -> Board:
        while True:
            for end in self.pool.ended():
                self._account(end.worker, end.failures, end.death)
            board = self.monitor.look()
            if observe is not None:
                observe(board)
            if not self.monitor.open:
                self._wait_for_exits()
                return board
            self._start_workers()
            time.sleep(max(POLL_SECONDS, _POLL_PER_RUN * len(self.monitor.open)))

    def _wait_for_exits(self) -> None:
        """Nothing is left to claim, so the workers exit by themselves: wait for that, up to a limit."""
        until = time.monotonic() + _EXIT_SECONDS
        while self.pool.at_work and time.monotonic() < until:
            self.pool.ended()
            time.sleep(0.05)

    def _start_workers(self) -> None:
        """Start workers for the free runs that no idle worker will take, up to the limit."""
        idle = sum(1 for worker in self.pool.at_work if not self.monitor.holds(worker))
        wanted = -(-self.monitor.free() // self.pool.order.sharing.turns) - idle
        for _ in range(min(self.most - len(self.pool.at_work), wanted)):
            self.pool.start(f"{socket.gethostname()}-{token_hex(4)}")

    def _account(self, worker: str, failures: dict[str, str], death: str | None) -> None:
        for run_id, reason in failures.items():
            self.monitor.fail(run_id, reason)
        if death is None:
            self.early_deaths = 0
            return
        held = self.monitor.held_by(worker)
        for run_id in held:
            if len(held) > 1:  # which of them it was is not known: each goes on without the others
                self.monitor.folders[run_id].set_alone()
            self.monitor.revoke_dead(run_id, worker)
            if len(held) == 1:
                self._count_death(run_id, death)
        if held:
            return
        self.early_deaths += 1
        if self.early_deaths >= MOST_DEATHS:
            raise MoelabError(f"study: workers die before they train anything: {death}")

    def _count_death(self, run_id: str, death: str) -> None:
        """A run is given up when its workers keep dying at the same place."""
        place = self.monitor.newest_checkpoint(run_id)
        before = self.deaths.get(run_id)
        count = before[0] + 1 if before is not None and before[1] == place else 1
        self.deaths[run_id] = (count, place)
        if count >= MOST_DEATHS:
            reason = f"its worker died {count} times ({death}); is there enough memory?"
            self.monitor.folders[run_id].save_failure(reason)
            self.monitor.fail(run_id, reason)


def _order(
    configs: list[RunConfig], monitor: RunMonitor, root: Path, data: Path, executor: ExecutorConfig, name: str
) -> Order:
    by_id = {config.run_id: config for config in configs}
    todo = [by_id[run_id] for run_id in monitor.open]
    return Order(
        name=name,
        configs=[config.to_dict() for config in todo],
        root=str(root.absolute()),
        data=str(data.absolute()),
        checkpoint_seconds=executor.checkpoint_seconds,
        patience=executor.patience,
        needs=Needs.of(todo),
        pin=monitor.free() == len(todo),
    )
