"""Work that takes seconds, each in a process of its own: with its progress, and ended at once when nobody wants it."""

import asyncio
import multiprocessing
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from moelab.errors import InputError, MoelabError

MOST_JOBS = 4
LONGEST_SECONDS = 600.0
KEPT = 64
"""Jobs that are remembered; of more, the oldest that has ended is forgotten."""


@dataclass
class Job:
    """One piece of work: whose it is, its share done, and what came of it."""

    visitor: str
    process: Any
    replies: Connection
    begun: float = field(default_factory=time.monotonic)
    share: float = 0.0
    result: Any = None
    error: str = ""

    def read(self) -> None:
        """Take in what the process has sent, and end one that takes too long."""
        try:
            while self.running and self.replies.poll():
                kind, value = self.replies.recv()
                setattr(self, kind, value)
        except (EOFError, OSError):
            self.error = self.error or "fit: the process ended without an answer, perhaps for want of memory"
        if self.running and time.monotonic() - self.begun > LONGEST_SECONDS:
            self.error = f"fit: takes more than {LONGEST_SECONDS:.0f} s; moelab fit has no such limit"
        if not self.running:
            self.end()

    @property
    def running(self) -> bool:
        """Whether an answer is still to come."""
        return self.result is None and not self.error

    def end(self) -> None:
        """Stop the process."""
        self.process.terminate()
        self.replies.close()


class Jobs:
    """The jobs of all visitors: one running job each, four in all."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}

    async def start(self, visitor: str, function: Callable[..., Any], *arguments: Any) -> str:
        """Begin function(*arguments, progress) for a visitor, ending what it had running; returns the job's id.

        Raises InputError where four others run already.
        """
        for name in [name for name, job in self.jobs.items() if job.visitor == visitor]:
            self.cancel(visitor, name)
        for job in self.jobs.values():
            job.read()
        if sum(job.running for job in self.jobs.values()) >= MOST_JOBS:
            raise InputError(f"fit: {MOST_JOBS} fits are running for others; try again in a moment")
        context = multiprocessing.get_context("spawn")
        replies, own = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(own, function, arguments), daemon=True)
        await asyncio.get_running_loop().run_in_executor(None, process.start)
        own.close()
        name = secrets.token_hex(16)
        self.jobs[name] = Job(visitor, process, replies)
        ended = [other for other, job in self.jobs.items() if not job.running]
        for other in ended[: max(0, len(self.jobs) - KEPT)]:
            del self.jobs[other]
        return name

    def job(self, visitor: str, name: str) -> Job:
        """A visitor's job as it stands. Raises InputError for one that is not theirs."""
        job = self.jobs.get(name)
        if job is None or job.visitor != visitor:
            raise InputError("fit: no such fit here; start it again")
        if job.running:
            job.read()
        return job

    def cancel(self, visitor: str, name: str) -> None:
        """End and forget a visitor's job."""
        job = self.jobs.get(name)
        if job is not None and job.visitor == visitor:
            if job.running:
                job.end()
            del self.jobs[name]

    def close(self) -> None:
        """End all jobs."""
        for job in self.jobs.values():
            if job.running:
                job.end()


def run(replies: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the process: send the share done as it grows, then the result or the error."""
    sent = 0.0

    def progress(share: float) -> None:
        nonlocal sent
        if share >= sent + 0.01 or share < sent:
            sent = share
            replies.send(("share", share))

    try:
        replies.send(("result", function(*arguments, progress)))
    except MoelabError as error:
        replies.send(("error", str(error)))
    except BrokenPipeError:
        return
    except Exception as error:
        replies.send(("error", f"fit: unexpected {type(error).__name__}"))
