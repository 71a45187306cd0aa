"""Speed of planning against its limits.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [--json FILE]

Four measurements in one run, one thread: a million candidates under four budgets with one law (CPU seconds), the start
of `moelab plan --help` and a default `moelab plan --flops 1e21` (wall and CPU seconds, best of several), and
serving one shape (CPU microseconds). Expected on one quiet core of a 2023 server: about 2 s, 0.2 s, 2 s, 2 us.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

from moelab.files import write_json
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.lattice import enumerate_designs
from moelab.planning.plan import plan
from moelab.serving import Traffic, load_hardware, serve

LIMITS = {"million_cpu_s": 5.0, "help_s": 0.3, "default_plan_s": 3.0, "serving_us": 3.0}


def million() -> tuple[float, int]:
    """CPU seconds of one plan under compute, memory, data and serving limits, scaled to a million candidates."""
    space = Space(ffn_ratio=(2.5, 3.0, 4.0))
    budget = Budget.parse(
        {
            "flops": 1e22,
            "max_params": "200B",
            "max_memory": "640GB",
            "unique_tokens": "5T",
            "max_epochs": 2,
            "serving": {"hardware": "h100", "tokens": 1e13, "traffic": {"tpot": "50ms"}},
        }
    )
    began = time.process_time()
    result = plan(budget, [get_law("ludziejewski2025")], space)
    return (time.process_time() - began) * 1e6 / result.n_designs, result.n_designs


def command(*words: str, repeats: int) -> tuple[float, float]:
    """Wall and CPU seconds of a command, each the least of several."""
    wall, cpu = [], []
    for _ in range(repeats):
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "moelab", *words], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(time.perf_counter() - began)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(wall), min(cpu)


def serving() -> float:
    """Microseconds of CPU a shape, devices and batch chosen, without and with a limit on latency: the mean of both."""
    shape = enumerate_designs(Space()).shape
    spent = []
    for traffic in (Traffic(), Traffic.parse({"tpot": "50ms"})):
        began = time.process_time()
        cost = serve(shape, traffic, load_hardware("h100"))
        spent.append((time.process_time() - began) / len(cost.gpus) * 1e6)
    return sum(spent) / len(spent)


def main() -> None:
    """Measure, print against the limits, record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the numbers here")
    options = parser.parse_args()
    seconds, designs = million()
    start, whole = command("plan", "--help", repeats=7), command("plan", "--flops", "1e21", repeats=3)
    found = {"million_cpu_s": seconds, "help_s": start[0], "default_plan_s": whole[0], "serving_us": serving()}
    print(f"{designs:,} designs searched in the first line, scaled to a million")
    print(
        f"CPU seconds of the two commands: {start[1]:.2f} and {whole[1]:.2f} (a busy machine only lengthens the wall)"
    )
    for name, value in found.items():
        print(f"{name:16} {value:8.3f}   limit {LIMITS[name]:4.1f}   {value / LIMITS[name]:5.0%} of it")
    if options.json:
        write_json(Path(options.json), {"measured": found, "cpu_s": [start[1], whole[1]], "limits": LIMITS})


if __name__ == "__main__":
    main()
