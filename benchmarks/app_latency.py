"""How long the planner page takes from a change to its answer: one visitor, and ten at once.

    python benchmarks/app_latency.py

It starts `moelab app` on a free port, asks for 50 states that differ in one field from the last (none of them asked
before), then lets ten visitors ask five each at the same time, and prints medians and worst cases in seconds. What a
browser adds to draw the answer is not in it (0.1 to 0.2 s).
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
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
    """States, each one field away from the one before."""
    chance = random.Random(seed)
    state, states = {"flops": "1e21", "max-params": "10B"}, []
    while len(states) < count:
        name = chance.choice(sorted(FIELDS))
        value = chance.choice(FIELDS[name])
        if name == "flops":
            value = f"{float(value) * chance.uniform(0.7, 1.4):.4g}".replace("e+", "e")
        state = {**state, name: value}
        if not state.get("hardware"):
            state = {key: each for key, each in state.items() if key not in ("serve-tokens", "tpot", "hardware")}
        states.append(dict(state))
    return states


def ask(address: str, state: dict[str, str]) -> float:
    """Seconds until the answer to a state is there; refusals count as answers."""
    begun = time.perf_counter()
    query = urlencode({name: value for name, value in state.items() if value})
    try:
        with urllib.request.urlopen(f"{address}part/answer?{query}") as reply:
            reply.read()
    except urllib.error.HTTPError as error:
        error.read()
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--visitors", type=int, default=10)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    command = [sys.executable, "-m", "moelab", "app", "--port", "0", "--processes", str(given.processes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().split()[2]
        try:
            for state in changes(99, 4):
                ask(address, state)
            one = [ask(address, state) for state in changes(0, given.changes)]
            with ThreadPoolExecutor(given.visitors) as pool:
                visits = [changes(seed, 5) for seed in range(1, given.visitors + 1)]
                every = list(pool.map(lambda states: [ask(address, state) for state in states], visits))
        finally:
            server.terminate()
    crowd = [seconds for visitor in every for seconds in visitor]
    for name, times in (("one visitor", one), (f"{given.visitors} visitors at once", crowd)):
        figures = {"n": len(times), "median_s": round(statistics.median(times), 3), "worst_s": round(max(times), 3)}
        print(json.dumps({"who": name, **figures}))


if __name__ == "__main__":
    main()
