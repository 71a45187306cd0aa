"""Kill workers and controllers of a study at random moments, again and again; then finish it and compare.

    python benchmarks/kill_study.py --kills 20 --seed 0 --log kills.log

Trains a small study once undisturbed. Then starts it in a new folder and sends SIGKILL to whoever is drawn (a worker
that holds a run, or the controller) at drawn moments, starting controllers again, until so many kills are done; a
study that ends before that is compared and a new one is begun. Every run must be there once, with the loss, the loss
curve and the weights of the undisturbed study, to the bit. Exit code 1 where not.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import yaml

from moelab.claim import Claim, find
from moelab.files import sha256_file
from moelab.runs.folder import CHECKPOINTS, LEASE

TEXT = "the cat sat on a mat while two dogs ran past seven tall trees and over an old wall"
EXPERTS = {"n_experts": 4, "top_k": 2, "d_expert": 24}


def write_study(folder: Path, tokens: int, lengths: tuple[int, ...] = (1, 2), checkpoint_seconds: float = 0.3) -> Path:
    """Runs with two seeds, dense ones of `lengths` times the tokens and a MoE, on a generated text of 100 documents."""
    texts = folder / "texts"
    texts.mkdir()
    vocabulary = TEXT.split()
    for index in range(100):
        words = [vocabulary[(index * 7 + i * i) % len(vocabulary)] for i in range(300)]
        (texts / f"{index:02d}.txt").write_text(" ".join(words))
    train = {"tokens": tokens, "seq_len": 32, "batch_tokens": 128, "learning_rate": 0.02, "eval_tokens": 2000}
    value: dict[str, Any] = {
        "name": "kills",
        "title": "A study that is killed",
        "data": {"sources": [str(texts)], "vocab_size": 300, "validation_share": 0.2},
        "base": {
            "model": {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 48},
            "train": {**train, "optimizer": "muon", "threads": 1, "precision": "fp32"},
        },
        "runs": [
            {"name": "dense", "set": {"train.tokens": [tokens * n for n in lengths], "train.seed": [0, 1]}},
            {"name": "moe", "set": {"model.moe": EXPERTS, "train.seed": [0, 1]}},
        ],
        "executor": {"checkpoint_seconds": checkpoint_seconds},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(value))
    return path


class Killing:
    """One study in one folder, started and killed."""

    def __init__(self, study: Path, out: Path, options: list[str], log: "Log") -> None:
        self.study, self.out, self.options, self.log = study, out, options, log
        self.kills = 0

    def start(self) -> subprocess.Popen[bytes]:
        """A controller."""
        command = [sys.executable, "-m", "moelab", "study", str(self.study), "--out", str(self.out), *self.options]
        with open(self.out.with_suffix(".err"), "ab") as errors:
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)

    def holders(self) -> list[Claim]:
        """The workers that hold a run now."""
        claims = [find(path / LEASE) for path in self.out.glob("runs/*")]
        return [claim for claim in claims if claim is not None and claim.surely_alive]

    def disturb(self, chance: random.Random, most: int) -> None:
        """Kill until `most` kills are done or the study has ended; then let it end."""
        controller = self.start()
        while self.kills < most and self.wait_for_work(controller):
            if chance.random() < 0.7:
                self.wait_for_progress(controller)
            time.sleep(chance.uniform(0, 1.5))
            holders = self.holders()
            if chance.random() < 0.5 and holders:
                self.kill_worker(chance.choice(holders))
            elif controller.poll() is None:
                controller.send_signal(signal.SIGKILL)
                controller.wait()
                self.count("controller", controller.pid, f"{len(holders)} runs at work")
                time.sleep(chance.uniform(0, 0.5))
                controller = self.start()
        code = controller.wait()
        while code:
            code = self.start().wait()
            if code:
                raise SystemExit(f"the study ended with exit code {code}: {self.out.with_suffix('.err').read_text()}")

    def wait_for_work(self, controller: subprocess.Popen[bytes]) -> bool:
        """Until a worker holds a run; False where the study ended."""
        while controller.poll() is None:
            if self.holders():
                return True
            time.sleep(0.02)
        return False

    def wait_for_progress(self, controller: subprocess.Popen[bytes]) -> None:
        """Until a checkpoint or a record is written, so that most kills hit runs with progress."""
        before = self.written()
        while controller.poll() is None and self.written() == before:
            time.sleep(0.02)

    def written(self) -> set[str]:
        """The checkpoints and records there are."""
        runs = self.out / "runs"
        return {str(path) for pattern in (f"*/{CHECKPOINTS}/[0-9]*", "*/record.json") for path in runs.glob(pattern)}

    def kill_worker(self, claim: Claim) -> None:
        with suppress(ProcessLookupError):
            os.kill(claim.pid, signal.SIGKILL)
            run = claim.place.parent
            steps = sorted(path.name for path in (run / CHECKPOINTS).glob("[0-9]*"))
            self.count("worker", claim.pid, f"run {run.name}, newest checkpoint {steps[-1] if steps else 'none'}")

    def count(self, who: str, pid: int, where: str) -> None:
        self.kills += 1
        self.log(f"kill {self.kills:>2}  {who:<10} {pid:>7}  {where}")


def outcome(out: Path) -> dict[str, Any]:
    """Run id -> everything that has to be the same to the bit."""
    found = {}
    for path in sorted(out.glob("runs/*")):
        record = json.loads((path / "record.json").read_text())
        same = {name: record[name] for name in ("loss", "train_loss", "bits_per_byte", "loss_curve", "status")}
        found[path.name] = same | {"weights": sha256_file(path / "model.safetensors")}
    return found


def resumed(out: Path) -> list[int]:
    """How often each run was resumed, in order."""
    return sorted(json.loads(path.read_text())["resumed"] for path in out.glob("runs/*/record.json"))


class Log:
    """Lines with the seconds since the start, to the screen and to a file."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream, self.started = stream, time.monotonic()

    def __call__(self, text: str) -> None:
        line = f"{time.monotonic() - self.started:7.1f} s  {text}"
        for stream in (sys.stdout, self.stream):
            if stream is not None:
                print(line, file=stream, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=51_200, help="of the shorter runs")
    parser.add_argument("--log", type=Path)
    parser.add_argument("options", nargs="*", help="for moelab study, after --")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="moelab-kills-") as folder:
        stream = given.log.open("w") if given.log else None
        raise SystemExit(run(Path(folder), given, Log(stream)))


def run(folder: Path, given: argparse.Namespace, log: Log) -> int:
    study, options, chance = (
        write_study(folder, given.tokens),
        given.options or ["--workers", "2"],
        random.Random(given.seed),
    )
    log(f"moelab study {' '.join(options)}, seed {given.seed}: undisturbed")
    calm = Killing(study, folder / "undisturbed", options, log)
    calm.disturb(chance, 0)
    wanted = outcome(calm.out)
    log(f"undisturbed: {len(wanted)} runs")
    kills = number = wrong = 0
    while kills < given.kills:
        number += 1
        wild = Killing(study, folder / f"disturbed-{number}", options, log)
        wild.kills = kills
        wild.disturb(chance, given.kills)
        found = outcome(wild.out)
        same = sum(found.get(run_id) == each for run_id, each in wanted.items())
        wrong += len(wanted.keys() ^ found.keys()) + len(wanted) - same
        log(
            f"disturbed-{number}: {wild.kills - kills} kills, {len(found)} of {len(wanted)} runs, each once; resumed "
            f"{resumed(wild.out)} times; losses, curves and weights identical in {same}"
        )
        kills = wild.kills
    log(f"{kills} kills: {'everything identical to the undisturbed study' if not wrong else f'{wrong} runs differ'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    main()
