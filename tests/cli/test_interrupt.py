"""Ctrl-C: one line that names what the same command will continue with, exit code 130, no traceback."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import yaml

from moelab.cli import main
from moelab.signals import interrupts_held


def interrupted(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    err = capsys.readouterr().err
    assert stop.value.code == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted")
    return err.splitlines()[-1]


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("place", "words", "line"),
    [
        ("moelab.architecture.count.load_model", ["count", "mixtral-8x7b"], "interrupted"),
        (
            "moelab.fitting.compare.compare_laws",
            ["fit", "runs.csv", "--law", "all"],
            "interrupted: nothing was written; the same command fits again from the start",
        ),
        (
            "moelab.data.prepare.prepare",
            ["data", "prepare", "--source", "x"],
            "interrupted: nothing half-written is left; the same command reuses what was downloaded and prepares again",
        ),
        (
            "moelab.export.export_run.export_run",
            ["export", "x", "--to", "hf"],
            "interrupted: nothing half-written is left; the same command exports again from the start",
        ),
    ],
)
def test_a_command_ends_with_one_line(
    place: str,
    words: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs.csv").write_text("loss,tokens,params_total\n2.0,1e9,1e8\n")
    monkeypatch.setattr(place, stop)
    assert interrupted(capsys, *words) == line


def run_yaml(folder: Path, data: Path) -> str:
    model = {"vocab_size": 300, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32}
    train = {"tokens": 640, "seq_len": 16, "batch_tokens": 64, "eval_tokens": 320}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({"model": model, "data": {"path": str(data)}, "train": train}))
    return str(path)


def test_training_names_the_step_it_continues_from(
    tiny_dataset: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from moelab.training.trainer import Trainer

    words = ("train", run_yaml(tmp_path, tiny_dataset.folder), "--out", str(tmp_path / "runs"))
    step, done = Trainer.step, []

    def until(trainer: Trainer) -> float:
        if len(done) == stop_at:
            raise KeyboardInterrupt
        done.append(1)
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", until)
    stop_at = 0
    assert "no checkpoint was written yet; the same command starts" in interrupted(capsys, *words)
    stop_at = 6
    line = interrupted(capsys, *words, "--checkpoint-seconds", "0")
    assert "from its checkpoint at step 6 of 10" in line
    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0


def _mask(sender: Connection) -> None:
    sender.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_a_process_that_starts_never_sees_an_interrupt() -> None:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_mask, args=(sender,))
    with interrupts_held():
        process.start()
    assert receiver.recv() is True
    process.join()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.fixture
def answers() -> Iterator[None]:
    """Python's own answer to Ctrl-C, which a process in the background of a shell does not have."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("answers")
def test_an_interrupt_that_was_held_is_answered_at_the_end() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        reached = True
    assert reached


@pytest.mark.usefixtures("answers")
def test_an_interrupt_that_another_thread_takes_is_held_too() -> None:
    reached = False
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012
        thread = threading.Thread(target=_take_an_interrupt)
        thread.start()
        thread.join()
        time.sleep(0.01)
        reached = True
    assert reached


def _take_an_interrupt() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.raise_signal(signal.SIGINT)


def workers_of(process: int) -> list[str]:
    """The spawned children of a process, by Linux's /proc."""
    found = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            for child in path.read_text().split():
                found += [child] if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text() else []
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers by /proc")
@pytest.mark.parametrize("seconds", [0.0, 0.2, 1.5])
def test_a_study_that_starts_its_workers_ends_with_one_line(tmp_path: Path, seconds: float, write_texts: Any) -> None:
    write_texts(tmp_path / "texts", 60)
    model = {"vocab_size": 300, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32}
    train = {"tokens": 64_000, "seq_len": 32, "batch_tokens": 256, "eval_tokens": 512}
    study = {
        "name": "tiny",
        "title": "Two rates",
        "data": {"sources": [str(tmp_path / "texts")], "vocab_size": 300, "validation_share": 0.2},
        "base": {"model": model, "train": train},
        "runs": [{"name": "rates", "set": {"train.learning_rate": [0.003, 0.01]}}],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "moelab", "study", str(tmp_path / "study.yaml"), "--out", str(out)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stderr=pipe, stdout=pipe, text=True, start_new_session=True)
    until = time.monotonic() + 120
    while not workers_of(process.pid) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    printed, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err + printed
    assert err.splitlines()[-1].startswith(f"interrupted: the same command keeps the 0 finished runs of {out}")
