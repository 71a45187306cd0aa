"""Every check and figure of moelab on one CUDA device, in one command without network or an installed moelab.

    PYTHONPATH=src python benchmarks/gpu.py --minutes 8 --out gpu      # on a machine with a GPU
    PYTHONPATH=src python benchmarks/gpu.py --dry --out dry            # the same code, small, on a CPU

Sections run one after another, most important first, each in a process of its own with a time limit, so that one that
fails or hangs loses only its own rows. `--out` gets `results.jsonl` (one figure or check a line, with its section) and
`errors.log`. A row that has a limit has `ok`; one beyond it, or one that `failed`, fails its section, and the command
ends with exit code 1. The next section's process imports its packages while the present one measures, and touches the
device only when it is its turn. Needs PyTorch 2.10 or newer with Triton; transformers and liger-kernel are measured
beside where they are installed.
"""

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SECTIONS = {
    "machine": 30,
    "correct": 60,
    "cross_entropy": 45,
    "layer": 70,
    "step_moe": 100,
    "step_dense": 80,
    "resume": 60,
    "many": 150,
    "peer_dense": 110,
    "granularity": 30,
    "recompute": 60,
    "peer_moe": 60,
}
"""Seconds that each section may take. `step_moe` is `run(bench, "moe")` of `gpu_sections.step`; so are its like."""
_DRY_PATIENCE = 5
"""A dry run's limits are so many times longer: the CPU may be a busy one."""
_LEAST_SECONDS = 8
"""A section is not begun with less time left."""


def main() -> None:
    """Run the sections, or one of them as a worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all sections together")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of the results")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"some of {', '.join(SECTIONS)}, in this order")
    parser.add_argument("--dry", action="store_true", help="small shapes on the CPU: does everything run?")
    parser.add_argument("--worker", choices=SECTIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.dry)
        return
    wanted = options.sections.split(",")
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        parser.error(f"--sections: must be some of {', '.join(SECTIONS)}, got {', '.join(unknown)}")
    options.out.mkdir(parents=True, exist_ok=True)
    failed = run(wanted, options.out, options.minutes * 60, options.dry)
    print("failed: " + ", ".join(failed) if failed else "every section ended well")
    sys.exit(1 if failed else 0)


def run(wanted: list[str], out: Path, seconds: float, dry: bool) -> list[str]:
    """Run the sections in turn until the time is over; the names of those that failed or were not begun."""
    ends, failed = time.monotonic() + seconds, []
    with (
        (out / "results.jsonl").open("a") as results,
        (out / "errors.log").open("a") as errors,
        ExitStack() as stack,
    ):
        upcoming = Worker.start(wanted[0], errors, dry)
        stack.callback(upcoming.stop)
        for number, name in enumerate(wanted):
            worker = upcoming
            left = ends - time.monotonic()
            if left < _LEAST_SECONDS:
                worker.stop()
                record(results, name, {"what": "not run", "reason": f"{left:.0f} s were left"})
                failed += wanted[number:]
                break
            worker.go()
            if number + 1 < len(wanted):
                upcoming = Worker.start(wanted[number + 1], errors, dry)
                stack.callback(upcoming.stop)
            began = time.monotonic()
            status = worker.wait(results, min(SECTIONS[name] * (_DRY_PATIENCE if dry else 1), left))
            record(results, name, {"what": "section", "status": status, "seconds": time.monotonic() - began})
            if status != "ended":
                failed.append(name)
    return failed


@dataclass
class Worker:
    """A process of one section; it waits for a line before it touches the device."""

    name: str
    process: subprocess.Popen[str]
    over: bool = False
    wrong: int = 0
    """Rows beyond their limit, and pieces of work that raised an error."""

    @classmethod
    def start(cls, name: str, errors: IO[str], dry: bool) -> "Worker":
        """Begin to import."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        return cls(name, subprocess.Popen(command(name, dry), text=True, start_new_session=True, **pipes))

    def go(self) -> None:
        """The device is free."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.close()
        except BrokenPipeError:  # it is dead already: `wait` finds its exit code
            pass

    def wait(self, results: IO[str], limit: float) -> str:
        """Copy its rows until it ends or its time is over."""
        timer = threading.Timer(limit, self.kill)
        timer.start()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                row = json.loads(line)
                self.wrong += row.get("ok") is False or "failed" in row
                record(results, self.name, row)
            except ValueError:
                print(f"[{self.name}] {line.rstrip()}", file=sys.stderr)
        code = self.process.wait()
        late = not timer.is_alive()
        timer.cancel()
        self.stop()
        if code:
            return f"stopped after {limit:.0f} s" if late else f"exit code {code}"
        return "ended" if not self.wrong else f"ended, {self.wrong} rows wrong"

    def stop(self) -> None:
        """End what there still is of it, whether it had its turn or not."""
        if self.over:
            return
        self.over = True
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()

    def kill(self) -> None:
        """With the processes that it started: they have the device too, and the other end of its pipe."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def command(name: str, dry: bool) -> list[str]:
    """The words of a worker."""
    return [sys.executable, __file__, "--worker", name, *(["--dry"] if dry else [])]


def record(results: IO[str], section: str, row: dict[str, Any]) -> None:
    """One line of the results, also printed."""
    line = json.dumps({"section": section, **row})
    results.write(line + "\n")
    results.flush()
    print(line, flush=True)


def work(name: str, dry: bool) -> None:
    """In a worker: import, wait for the turn, measure."""
    kind, _, argument = name.partition("_") if name.startswith(("step_", "peer_")) else (name, "", "")
    section = importlib.import_module(f"gpu_sections.{kind}")
    common = importlib.import_module("gpu_sections.common")
    if not sys.stdin.readline():
        return
    bench = common.Bench.open(dry)
    section.run(bench, *([argument] if argument else []))


if __name__ == "__main__":
    main()
