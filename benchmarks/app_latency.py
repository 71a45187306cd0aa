"""How long the planner page takes from a change to its answer: one visitor, and ten at once.

    python benchmarks/app_latency.py

It starts `moelab app` on a free port and asks as the page does: for the answer (sentences and designs), then for its
evidence (figures, gains, released models, each law), then for what would change it. One visitor makes 50 changes of one
field each; then ten visitors make five each at the same time, first with a pause of `--pause` seconds before each
change, then without. No state is asked twice. It prints medians and worst cases in seconds from the change on, of each
part, and the processor time of a change. What a browser adds to show the answer is not in it (0.1 s).
"""

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

FIELDS = {
    "flops": ["1e20", "3e20", "1e21", "3e21", "1e22", "1e23", "1e24"],
    "max-params": ["", "2B", "5B", "10B", "50B", "200B"],
    "unique-tokens": ["", "100B", "300B", "2T"],
    "hardware": ["", "h100", "h200", "b200"],
    "serve-tokens": ["", "1e12", "1e13"],
    "tpot": ["", "50ms", "30ms"],
}


def changes(seed: int, count: int) -> list[dict[str, str]]:
    """States, each one field away from the one before; those of another seed have other FLOPs."""
    chance = random.Random(seed)
    state = {"flops": _near(chance, "1e21"), "max-params": "10B"}
    states: list[dict[str, str]] = []
    while len(states) < count:
        name = chance.choice(sorted(FIELDS))
        value = chance.choice(FIELDS[name])
        if name == "flops":
            value = _near(chance, value)
        changed = {**state, name: value}
        if not changed.get("hardware"):
            changed = {key: each for key, each in changed.items() if key not in ("serve-tokens", "tpot", "hardware")}
        changed = {key: each for key, each in changed.items() if each}
        if changed not in [state, *states]:
            state = changed
            states.append(changed)
    return states


def _near(chance: random.Random, flops: str) -> str:
    return f"{float(flops) * chance.uniform(0.7, 1.4):.4g}".replace("e+", "e")


def ask(address: str, part: str, state: dict[str, str]) -> float:
    """Seconds until a part of the answer to a state is there; refusals count as answers."""
    begun = time.perf_counter()
    try:
        with urllib.request.urlopen(f"{address}part/{part}?{urlencode(state)}") as reply:
            reply.read()
    except urllib.error.HTTPError as error:
        error.read()
    return time.perf_counter() - begun


PARTS = ("answer", "evidence", "changes")


def visit(address: str, states: list[dict[str, str]], pause: float = 0.0) -> list[list[float]]:
    """Seconds from each change to each of the parts."""
    found = []
    for state in states:
        time.sleep(pause)
        found.append(list(itertools.accumulate(ask(address, part, state) for part in PARTS)))
    return found


def report(who: str, times: list[list[float]], cpu: float) -> None:
    """Print a line."""
    figures: dict[str, float] = {"n": len(times)}
    for name, column in zip(PARTS, zip(*times, strict=True), strict=True):
        figures[f"{name}_median_s"] = round(statistics.median(column), 3)
        figures[f"{name}_worst_s"] = round(max(column), 3)
    print(json.dumps({"who": who, **figures, "cpu_s_per_change": round(cpu / len(times), 3)}), flush=True)


def spent(group: int) -> float:
    """Processor seconds of the server and its processes so far, where /proc has them."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--visitors", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pause", type=float, default=5.0)
    given = parser.parse_args()
    command = [sys.executable, "-m", "moelab", "app", "--port", "0", "--processes", str(given.processes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[2]
        try:
            with ThreadPoolExecutor(given.processes) as pool:  # each process has planned before
                list(pool.map(lambda seed: visit(address, changes(seed, 3)), range(-given.processes, 0)))
            before = spent(server.pid)
            one = visit(address, changes(0, given.changes))
            report("one visitor", one, spent(server.pid) - before)
            for round_, pause in enumerate((given.pause, 0.0)):
                seeds = [1 + round_ * given.visitors + number for number in range(given.visitors)]
                before = spent(server.pid)
                with ThreadPoolExecutor(given.visitors) as pool:
                    visits = list(pool.map(lambda seed: visit(address, changes(seed, 5), pause), seeds))  # noqa: B023
                times = [each for visitor in visits for each in visitor]
                report(
                    f"{given.visitors} visitors at once, {pause:g} s between changes", times, spent(server.pid) - before
                )
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
