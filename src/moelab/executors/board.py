"""The state of a folder of runs: which are finished, running (and how fast) or failed, and whose worker died.

Every worker, on this machine or another, writes the same files, so one board serves every executor.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moelab.claim import Claim
from moelab.lease import Watch, revoke
from moelab.runs import RunConfig, RunFolder, RunRecord, run_columns
from moelab.runs.folder import CHECKPOINTS, LEASE


@dataclass(kw_only=True)
class Board:
    """What a live display needs: the number of runs in each state, and the live numbers of those running."""

    total: int
    finished: list[RunRecord] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    running: dict[str, dict[str, float]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    workers: int = 0
    done_flops: float = 0.0
    total_flops: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """The sum over all running runs."""
        return sum(numbers.get("tokens_per_second", 0.0) for numbers in self.running.values())


Observer = Callable[[Board], None]


class RunMonitor:
    """Polls the runs' folders and revokes the leases of dead workers."""

    def __init__(self, configs: list[RunConfig], root: Path, patience: float, listed: bool = False) -> None:
        self.folders = {config.run_id: RunFolder(root / config.run_id) for config in configs}
        self.costs = {config.run_id: float(run_columns(config)["train_flops"]) for config in configs}
        self.names = {config.run_id: config.name or config.run_id for config in configs}
        self.open = list(self.folders) if listed else sorted(self.folders, key=self.costs.__getitem__, reverse=True)
        """Runs that are neither finished nor failed: as listed, or most expensive first."""
        self.failed: dict[str, str] = {}
        self._records: dict[str, RunRecord] = {}
        self._claims: dict[str, Claim] = {}
        self._watch = Watch(patience)

    def look(self) -> Board:
        """The state now. Raises InputError for a finished run whose config or record was tampered with."""
        self._claims = {}
        still_open = []
        for run_id in self.open:
            folder = self.folders[run_id]
            reason = self.failed.get(run_id) or folder.load_failure()
            if folder.finished:
                self._records[run_id] = folder.load_record()
                self.failed.pop(run_id, None)
            elif reason is not None:
                self.failed[run_id] = reason
            else:
                still_open.append(run_id)
                self._note_claim(run_id)
        self.open = still_open
        return self._board()

    def free(self) -> int:
        """The number of open runs without a worker."""
        return len(self.open) - len(self._claims)

    def holds(self, worker: str) -> bool:
        """Whether a worker held a run at the last look."""
        return any(claim.holder == worker for claim in self._claims.values())

    def held_by(self, worker: str) -> list[str]:
        """The open runs that a worker holds."""
        claims = {run_id: self.folders[run_id].claim for run_id in self.open}
        return [run_id for run_id, claim in claims.items() if claim is not None and claim.holder == worker]

    def revoke_dead(self, run_id: str, worker: str) -> None:
        """Take a run from a worker that is known to be dead."""
        claim = self.folders[run_id].claim
        if claim is not None and claim.holder == worker:
            revoke(claim)

    def fail(self, run_id: str, reason: str) -> None:
        """Count a run as failed in this study."""
        if not self.folders[run_id].finished:
            self.failed[run_id] = reason

    def clear_failures(self) -> None:
        """Let runs that failed before be tried again."""
        for folder in self.folders.values():
            folder.clear_failure()

    def newest_checkpoint(self, run_id: str) -> str:
        """The name of a run's newest checkpoint, empty without one. It changes when a run makes progress."""
        try:
            names = os.listdir(self.folders[run_id].path / CHECKPOINTS)
        except OSError:
            return ""
        return max((name for name in names if name.isdigit()), default="")

    def _note_claim(self, run_id: str) -> None:
        place = self.folders[run_id].path / LEASE
        dead = self._watch.dead(place)
        if dead is not None:
            revoke(dead)
            return
        claim = self.folders[run_id].claim
        if claim is not None and not claim.free:
            self._claims[run_id] = claim

    def _board(self) -> Board:
        progress = {run_id: self.folders[run_id].load_progress() for run_id in self._claims}
        part = sum(
            self.costs[run_id] * numbers["step"] / numbers["steps"] for run_id, numbers in progress.items() if numbers
        )
        return Board(
            total=len(self.folders),
            finished=list(self._records.values()),
            failed=dict(self.failed),
            running=progress,
            names=self.names,
            workers=len({claim.holder or claim.pid for claim in self._claims.values()}),
            done_flops=sum(self.costs[run_id] for run_id in self._records) + part,
            total_flops=sum(cost for run_id, cost in self.costs.items() if run_id not in self.failed),
        )
