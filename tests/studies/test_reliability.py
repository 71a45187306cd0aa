"""Whole studies in real processes, by every executor and with all that can go wrong: the numbers stay the same.

Each disaster is one line on stderr. The kills are in benchmarks/kill_study.py, which also writes their log.
"""

import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from moelab.claim import find
from moelab.data import PrepareConfig
from moelab.data.prepare import prepare
from moelab.runs.folder import CHECKPOINTS, LEASE

pytestmark = pytest.mark.dist
ROOT = Path(__file__).parents[2]


def load_kills() -> ModuleType:
    """benchmarks/kill_study.py: its study is the one that everything happens to here."""
    spec = importlib.util.spec_from_file_location("kill_study", ROOT / "benchmarks" / "kill_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


kills = load_kills()


class Tiny:
    """A study of four runs, dense and MoE, and what it gives when nobody disturbs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = kills.write_study(folder, 12_800, lengths=(1,), checkpoint_seconds=0.1)
        self.study: dict[str, Any] = yaml.safe_load(self.path.read_text())
        self.config = PrepareConfig.parse(self.study["data"])

    def command(self, out: Path, *options: str) -> list[str]:
        return [sys.executable, "-m", "moelab", "study", str(self.path), "--out", str(out), "--workers", "2", *options]

    def start(self, out: Path, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(out, *options), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def run(self, out: Path, *options: str, **how: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(out, *options), capture_output=True, text=True, check=False, **how)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny) -> dict[str, Any]:
    done = tiny.run(tiny.folder / "undisturbed")
    assert done.returncode == 0, done.stderr
    found = kills.outcome(tiny.folder / "undisturbed")
    assert len(found) == 4
    return found


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a failure: the last line, and no traceback."""
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.mark.parametrize(
    ("executor", "package", "options"),
    [("ray", "ray", []), ("slurm", "submitit", ["--executor-option", "cluster=local"])],
)
def test_every_executor_gives_the_same_numbers(
    tiny: Tiny, undisturbed: dict[str, Any], tmp_path: Path, executor: str, package: str, options: list[str]
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'moelab[cluster]'")
    done = tiny.run(tmp_path / "out", "--executor", executor, *options)
    assert done.returncode == 0, done.stderr
    assert kills.outcome(tmp_path / "out") == undisturbed


def test_a_second_call_helps_the_first(tiny: Tiny, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """Two at once: both end well, and no record is ever written twice."""
    out = tmp_path / "out"
    helpers = [tiny.start(out), tiny.start(out)]
    written: dict[Path, set[int]] = {}
    while any(helper.poll() is None for helper in helpers):
        for record in out.glob("runs/*/record.json"):
            written.setdefault(record, set()).add(record.stat().st_ino)
        time.sleep(0.02)
    errors = [helper.communicate()[1] for helper in helpers]
    assert [helper.returncode for helper in helpers] == [0, 0], errors
    assert kills.outcome(out) == undisturbed
    assert [len(inodes) for inodes in written.values()] == [1] * 4
    assert not list(out.rglob(".*lease*"))


def test_a_full_disk_is_one_line_and_loses_nothing(tiny: Tiny, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """No file may grow beyond 30 kB, too little for the weights; the text is prepared before."""
    out = tmp_path / "out"
    prepare(tiny.config, out / "data")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))"
    code = f"{limit}\nfrom moelab.cli import main\nmain({tiny.command(out)[3:]!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    message = one_line(done)
    assert "all 4 runs failed" in message
    assert "cannot write" in message
    done = tiny.run(out)
    assert done.returncode == 0, done.stderr
    assert kills.outcome(out) == undisturbed


def test_an_unwritable_folder_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = tiny.run(tmp_path / "file" / "out")
    assert done.returncode == 2
    assert "--out: cannot create the folder" in one_line(done)


def test_damaged_checkpoints_and_edited_configs(tiny: Tiny, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """A kill, then the newest checkpoint of every run cut short: the one before it serves, and a note reports it."""
    for attempt in range(5):
        out = tmp_path / f"out{attempt}"
        damaged = killed_and_cut(tiny, out)
        if damaged:
            break
    assert damaged
    done = tiny.run(out)
    assert done.returncode == 0, done.stderr
    assert "is damaged (model.safetensors does not match its checksum); using the one before it" in done.stderr
    assert kills.outcome(out) == undisturbed
    config = out / "runs" / damaged[0] / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.02", "learning_rate: 0.03"))
    done = tiny.run(out)
    assert done.returncode == 2
    assert "config.yaml was edited" in one_line(done)


def killed_and_cut(tiny: Tiny, out: Path) -> list[str]:
    """Kill a study whose run has two checkpoints, and cut them; none where the run ended before the kill reached it."""
    first = tiny.start(out)
    while first.poll() is None and not cut(out, only_look=True):
        time.sleep(0.01)
    first.kill()
    first.communicate()
    while any(claim is not None and claim.surely_alive for claim in (find(run / LEASE) for run in out.glob("runs/*"))):
        time.sleep(0.05)
    return cut(out)


def cut(out: Path, only_look: bool = False) -> list[str]:
    """Truncate the newest checkpoint of runs that have two; the names of these runs."""
    found = []
    for run in out.glob("runs/*"):
        steps = sorted((run / CHECKPOINTS).glob("[0-9]*"))
        if len(steps) >= 2 and not (run / "record.json").exists():
            found.append(run.name)
            if not only_look:
                weights = steps[-1] / "model.safetensors"
                weights.write_bytes(weights.read_bytes()[:-10])
    return found


def test_clocks_that_jump_change_nothing(tiny: Tiny, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """In every process the wall clock jumps by years at each look, and the files' times with it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "real, jumps = time.time, itertools.cycle([0.0, 3e8, -3e8])\n"
        "time.time = lambda: real() + next(jumps)\n"
    )
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    out, stop = tmp_path / "out", threading.Event()
    jumper = threading.Thread(target=shift_times, args=(out, stop))
    jumper.start()
    done = tiny.run(out, env={**os.environ, "PYTHONPATH": path})
    stop.set()
    jumper.join()
    assert done.returncode == 0, done.stderr
    assert kills.outcome(out) == undisturbed


def shift_times(out: Path, stop: threading.Event) -> None:
    """Set the times of all leases into the past and the future, again and again."""
    while not stop.wait(0.2):
        for path in out.glob("runs/*/.lease.*"):
            try:
                os.utime(path, (1e9, 1e9) if int(path.stat().st_mtime) > 1.2e9 else (4e9, 4e9))
            except OSError:
                continue


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the workers through /proc")
def test_twenty_kills(tmp_path: Path) -> None:
    log = Path(os.environ.get("MOELAB_KILL_LOG", tmp_path / "kills.log"))
    script = ROOT / "benchmarks" / "kill_study.py"
    command = [sys.executable, str(script), "--kills", "20", "--tokens", "19200", "--log", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 kills: everything identical to the undisturbed study" in log.read_text()
