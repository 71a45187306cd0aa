"""Speed of planning against its limits.

    OMP_NUM_THREADS=1 python benchmarks/plan.py [--json FILE]

Six measurements in one run, one thread, in processor time: a million candidates under four budgets with one law; the
start of `moelab plan --help`; a default `moelab plan --flops 1e21`; the question of a training team with serving; a
second plan of the same process for another budget, with and without serving; and serving one shape. Expected on one
quiet core of a 2023 server: about 2 s, 0.1 s, 1.2 s, 2.5 s, 0.6 s, 1.2 s, 2 us.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from moelab.files import write_json
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.lattice import enumerate_designs
from moelab.planning.plan import plan
from moelab.serving import Traffic, load_hardware, serve

LIMITS = {
    "million_cpu_s": 5.0, "help_cpu_s": 0.3, "default_plan_cpu_s": 1.5, "team_plan_cpu_s": 3.0,
    "second_plan_cpu_s": 0.3, "second_served_cpu_s": 0.3, "serving_us": 3.0,
}  # fmt: skip

TEAM = (
    "plan", "--gpus", "512", "--days", "30", "--train-hardware", "h100", "--precision", "fp8", "--hardware", "h200",
    "--serve-gpus", "8", "--tpot", "30ms", "--prompt", "3000", "--output", "800", "--serve-tokens", "1e14",
    "--unique-tokens", "20T",
)  # fmt: skip
"""A training team's question: 512 devices for 30 days, and 1e14 tokens to serve."""


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


def command(*words: str, repeats: int) -> float:
    """CPU seconds of a command, the least of several."""
    spent = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "moelab", *words], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


def second(serving: dict[str, Any] | None) -> float:
    """CPU seconds of a plan for another budget in a process that has planned over the same space, least of four."""
    spent = []
    for flops in (1e21, 1.3e21, 8e20, 2e21, 5e20):
        budget = Budget.parse({"flops": flops, "serving": serving})
        began = time.process_time()
        plan(budget)
        spent.append(time.process_time() - began)
    return min(spent[1:])


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
    traffic = {"prompt": 3000, "output": 800, "tpot": "30ms", "gpus": 8, "precision": "fp8"}
    found = {
        "million_cpu_s": seconds,
        "help_cpu_s": command("plan", "--help", repeats=7),
        "default_plan_cpu_s": command("plan", "--flops", "1e21", repeats=3),
        "team_plan_cpu_s": command(*TEAM, repeats=3),
        "second_plan_cpu_s": second(None),
        "second_served_cpu_s": second({"hardware": "h200", "tokens": 1e14, "traffic": traffic}),
        "serving_us": serving(),
    }
    print(f"{designs:,} designs searched in the first line, scaled to a million")
    print(f"{len(enumerate_designs(Space())):,} designs in the default space")
    for name, value in found.items():
        print(f"{name:20} {value:8.3f}   limit {LIMITS[name]:4.1f}   {value / LIMITS[name]:5.0%} of it")
    if options.json:
        write_json(Path(options.json), {"measured": found, "limits": LIMITS})


if __name__ == "__main__":
    main()
