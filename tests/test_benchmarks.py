"""The benchmark of CUDA devices runs whole on a CPU, small; its figures mean nothing there."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu.py"


def test_an_unknown_section_is_refused() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--sections", "machine,speed"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--sections: must be some of machine" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("got speed")


HANGING = """
import json, os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
sys.stdin.readline()
print(json.dumps({"what": "pids", "pids": [os.getpid(), child.pid]}), flush=True)
time.sleep(600)
"""
ENDING = "import sys; sys.stdin.readline(); print('{}')"
WRONG = """
import sys
sys.stdin.readline()
print('{"what": "figure", "error": 0.5, "ok": false}')
print('{"what": "piece", "failed": "ValueError: no"}')
print('{"what": "figure", "error": 0.1, "ok": true}')
"""


@pytest.mark.slow
def test_a_section_that_hangs_is_killed_and_wrong_rows_fail_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its child holds the pipe of its rows; the next section runs all the same."""
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    gpu = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", gpu)
    spec.loader.exec_module(gpu)
    code = {"hanging": HANGING, "ending": ENDING, "wrong": WRONG}
    monkeypatch.setattr(gpu, "SECTIONS", {"hanging": 5, "ending": 60, "wrong": 60})
    monkeypatch.setattr(gpu, "command", lambda name, dry: [sys.executable, "-c", code[name]])
    assert gpu.run(["hanging", "ending", "wrong"], tmp_path, 120, False) == ["hanging", "wrong"]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    ends = {row["section"]: row for row in rows if row.get("what") == "section"}
    assert ends["hanging"]["status"] == "stopped after 5 s"
    assert ends["hanging"]["seconds"] < 60
    assert ends["ending"]["status"] == "ended"
    assert ends["wrong"]["status"] == "ended, 2 rows wrong"
    pids = [pid for row in rows if row.get("what") == "pids" for pid in row["pids"]]
    assert len(pids) == 2
    assert [pid for pid in pids if alive(pid)] == []


def alive(pid: int) -> bool:
    """Whether a process still computes: one that is dead may wait for whoever adopted it to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_every_section_of_the_gpu_benchmark_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, str(SCRIPT), "--dry", "--minutes", "20", "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    errors = (tmp_path / "errors.log").read_text(encoding="utf-8")
    assert done.returncode == 0, errors[-4000:]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len([row for row in rows if row["what"] == "section" and row["status"] == "ended"]) == 12
    assert [row for row in rows if "failed" in row or row.get("ok") is False] == []
    assert len([row for row in rows if row.get("ok")]) >= 30
    resumed = [row for row in rows if row["what"] == "resume"]
    assert [row["model"] for row in resumed] == ["dense", "moe"]
    assert all(row["curve_equal"] and row["weights_equal"] for row in resumed)
    recorded = [row for row in rows if row["what"] == "recorded steps"]
    assert [row["model"] for row in recorded] == ["moe", "dense"]
    assert all(row["curve_equal"] and row["weights_equal"] and row["steps"] > 5 for row in recorded)
    assert {(row["recorded"], row["reason"]) for row in recorded} == {(False, "a CPU records no graphs")}
    many = [row for row in rows if row["what"] == "many"]
    ways = ["two CPU cores", "alone", "streams and graphs", "processes"]
    assert [(row["model"], row["how"]) for row in many] == [(model, how) for model in ("moe", "dense") for how in ways]
    assert all(row["runs_per_hour"] > 0 and row["params"] < 5e6 and row["aim"] == 20 for row in many)
    assert all(row["times_two_cpu_cores"] > 0 for row in many if row["how"] != "two CPU cores")
