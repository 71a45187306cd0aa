"""Jobs: progress, results and errors come from a process of its own, which ends when it is cancelled."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from moelab.app.jobs import Job, Jobs
from moelab.errors import InputError


def half_done(value: int, progress: Callable[[float], None]) -> int:
    progress(0.5)
    return value + 1


def refused(progress: Callable[[float], None]) -> None:
    raise InputError("loss: no such column")


def broken(progress: Callable[[float], None]) -> None:
    raise RuntimeError("/secret/path")


def endless(progress: Callable[[float], None]) -> None:
    progress(0.25)
    time.sleep(600)


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    found = Jobs()
    yield found
    found.close()


def finished(jobs: Jobs, name: str, enough: Callable[[Job], Any] = lambda job: not job.running) -> Job:
    """A visitor's job once it is far enough; a minute at most."""
    end = time.monotonic() + 60
    while not enough(job := jobs.job("one", name)):
        assert time.monotonic() < end
        time.sleep(0.02)
    return job


def test_progress_result_errors_and_cancelling(jobs: Jobs) -> None:
    name = asyncio.run(jobs.start("one", half_done, 41))
    job = finished(jobs, name)
    assert (job.result, job.share, job.error) == (42, 0.5, "")
    with pytest.raises(InputError, match="no such fit"):
        jobs.job("two", name)
    job = finished(jobs, asyncio.run(jobs.start("one", refused)))
    assert job.error == "loss: no such column"
    job = finished(jobs, asyncio.run(jobs.start("one", broken)))
    assert job.error == "fit: unexpected RuntimeError"
    name = asyncio.run(jobs.start("one", endless))
    job = finished(jobs, name, lambda job: job.share == 0.25)
    jobs.cancel("two", name)
    assert job.process.is_alive()
    jobs.cancel("one", name)
    job.process.join(20)
    assert not job.process.is_alive()
    with pytest.raises(InputError, match="start it again"):
        jobs.job("one", name)
