"""Workers on a Ray cluster, or on one started on this machine: one task per worker, with its cores and memory."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from moelab.errors import InputError, MoelabError
from moelab.executors.options import ExecutorConfig, job_memory
from moelab.executors.order import End, Needs, Order
from moelab.executors.worker import work
from moelab.machine import usable_cores
from moelab.quantities import format_bytes


class RayPool:
    """Tasks of a Ray cluster; Ray ends them with the process that started them."""

    def __init__(self, order: Order, options: ExecutorConfig) -> None:
        import ray

        self.order, self._options, self._ray = order, options, ray
        self._task: Any = ray.remote(work)
        self._workers: dict[str, Any] = {}

    def start(self, worker: str) -> None:
        """Submit a task; Ray starts it where its cores and memory are free."""
        needs, gpus = self.order.needs, self._options.gpus
        task = self._task.options(
            num_cpus=needs.cores,
            num_gpus=float(needs.cuda) if gpus is None else gpus,
            memory=int(job_memory(self.order, self._options)),
            max_retries=0,
        )
        self._workers[worker] = task.remote(self.order, worker)

    @property
    def at_work(self) -> set[str]:
        """The workers that have not been seen to end."""
        return set(self._workers)

    def ended(self) -> list[End]:
        """Those that ended since the last call."""
        if not self._workers:
            return []
        done, _ = self._ray.wait(list(self._workers.values()), num_returns=len(self._workers), timeout=0)
        return [self._revoke_dead(name) for name, task in list(self._workers.items()) if task in done]

    def close(self) -> None:
        """End all workers."""
        for task in self._workers.values():
            with suppress(self._ray.exceptions.RayError):
                self._ray.cancel(task, force=True)
        self._workers.clear()

    def _revoke_dead(self, name: str) -> End:
        try:
            return End(worker=name, failures=self._ray.get(self._workers.pop(name)))
        except self._ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return End(worker=name, failures={}, death=lines[-1].strip() if lines else type(error).__name__)


@contextmanager
def open_ray(order: Order, options: ExecutorConfig) -> Iterator[RayPool]:
    """A pool on the cluster that this process is connected to, or connects to now."""
    with cluster(options):
        pool = RayPool(order, options)
        try:
            yield pool
        finally:
            pool.close()


def ray_workers(needs: Needs, options: ExecutorConfig, wanted: int) -> int:
    """As many as asked for, or as the cluster has cores (or GPUs) for. Needs the connection that `open_ray` makes.

    Raises MoelabError where no node could ever run one.
    """
    import ray

    there = ray.cluster_resources()
    gpus = options.gpus if options.gpus is not None else float(needs.cuda)
    most = there.get("GPU", 0) / gpus if gpus else there.get("CPU", 1) / needs.cores
    if most < 1:
        raise MoelabError(f"executor: the Ray cluster has no place for a run: {needs.cores} cores and {gpus:g} GPUs")
    most = wanted or min(int(most), options.jobs(needs.n_runs) if options.share else int(most))
    turns = min(options.share, -(-needs.n_runs // most)) if isinstance(options.share, int) else 1
    memory = (options.memory or needs.memory) * turns
    if memory > there.get("memory", memory):
        what = "the largest run" if turns == 1 else f"a job of {turns} runs (share: {options.share})"
        raise MoelabError(
            f"executor: {what} needs about {format_bytes(memory)}, the Ray cluster has "
            f"{format_bytes(there['memory'])}; take smaller models, or set --executor-option memory=..."
        )
    return int(most)


@contextmanager
def cluster(options: ExecutorConfig) -> Iterator[None]:
    """A connection to the cluster at `options.address`, or to a new one on this machine that ends with the block.

    Nothing happens inside another such block. Raises InputError where there is no Ray.
    """
    if not _connect(options):
        yield
        return
    import ray

    try:
        yield
    finally:
        ray.shutdown()


def _connect(options: ExecutorConfig) -> bool:
    """Whether this call connected."""
    if importlib.util.find_spec("ray") is None:
        raise InputError("executor: Ray is not installed; pip install 'moelab[cluster]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    if options.address is None:
        quiet |= {"num_cpus": usable_cores(), "object_store_memory": 80 << 20}
    else:
        quiet.pop("include_dashboard")
    try:
        ray.init(address=options.address or "local", **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"executor: cannot reach a Ray cluster at {options.address}: {error}") from None
    return True
