"""Workers as Slurm jobs through submitit: one job per worker, its logs beside the runs."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from moelab.errors import InputError
from moelab.executors.options import ExecutorConfig, job_memory
from moelab.executors.order import End, Needs, Order
from moelab.executors.worker import work
from moelab.files import make_folder

_MOST_JOBS = 16
"""Jobs at a time where the number of workers is left open."""


class SlurmPool:
    """Jobs of one study. They outlive the process that submitted them, and end when nothing is left to claim."""

    def __init__(self, order: Order, options: ExecutorConfig) -> None:
        import submitit

        self.order, self._options = order, options
        self._executor = submitit.AutoExecutor(
            folder=make_folder(Path(order.root).parent / "slurm"), cluster=options.cluster
        )
        self._jobs: dict[str, Any] = {}

    def start(self, worker: str) -> None:
        """Submit a job."""
        self._executor.update_parameters(**_parameters(self.order, self._options))
        self._jobs[worker] = self._executor.submit(work, self.order, worker)

    @property
    def at_work(self) -> set[str]:
        """The workers that have not been seen to end; some may still be in the queue."""
        return set(self._jobs)

    def ended(self) -> list[End]:
        """Those that ended since the last call."""
        return [self._revoke_dead(name) for name, job in list(self._jobs.items()) if job.done()]

    def close(self) -> None:
        """Cancel the jobs that are still there."""
        for job in self._jobs.values():
            with suppress(Exception):  # a job that ends by itself just now
                job.cancel(check=False)
        self._jobs.clear()

    def _revoke_dead(self, name: str) -> End:
        import submitit

        job = self._jobs.pop(name)
        try:
            return End(worker=name, failures=job.result())
        except submitit.core.utils.FailedJobError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return End(worker=name, failures={}, death=f"job {job.job_id} {job.state}: {lines[-1] if lines else ''}")
        except submitit.core.utils.UncompletedJobError:
            return End(worker=name, failures={}, death=f"job {job.job_id} ended without a result ({job.state})")


@contextmanager
def open_slurm(order: Order, options: ExecutorConfig) -> Iterator[SlurmPool]:
    """A pool of Slurm jobs. Raises InputError where submitit or Slurm is missing."""
    check_slurm(options)
    pool = SlurmPool(order, options)
    try:
        yield pool
    finally:
        pool.close()


def check_slurm(options: ExecutorConfig) -> None:
    """Raises InputError where no job can be submitted."""
    if importlib.util.find_spec("submitit") is None:
        raise InputError("executor: submitit is not installed; pip install 'moelab[cluster]'")
    if options.cluster == "slurm" and shutil.which("sbatch") is None:
        raise InputError(
            "executor: no Slurm here (no sbatch command); start the study on a login node of a cluster, or try it on "
            "this machine with --executor-option cluster=local"
        )


def slurm_workers(needs: Needs, options: ExecutorConfig, wanted: int) -> int:
    """As many jobs as asked for, or one per run, or per so many as share one, up to sixteen."""
    return wanted or min(options.jobs(needs.n_runs), _MOST_JOBS)


def _parameters(order: Order, options: ExecutorConfig) -> dict[str, Any]:
    """submitit's names for what a job asks for."""
    gpus = options.gpus if options.gpus is not None else float(order.needs.cuda)
    common: dict[str, Any] = {
        "name": order.name,
        "timeout_min": max(1, round(options.time / 60)),
        "cpus_per_task": options.cpus or order.needs.cores,
        "mem_gb": max(1.0, round(job_memory(order, options) / 1e9, 1)),
        "gpus_per_node": int(gpus),
    }
    if options.cluster == "local":
        return common
    own = {
        "slurm_partition": options.partition,
        "slurm_account": options.account,
        "slurm_qos": options.qos,
        "slurm_setup": options.setup or None,
    }
    return common | {name: value for name, value in own.items() if value is not None}
