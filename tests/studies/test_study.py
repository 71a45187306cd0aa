"""A whole tiny study in real processes: its folder, its second call, and kills of worker and controller."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moelab.errors import InputError
from moelab.studies import load_study, run_study
from moelab.studies.folder import StudyFolder
from moelab.studies.steps import study_steps

Write = Callable[[int], Path]
MODEL = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 48}


@pytest.fixture
def write_study(write_texts: Callable[..., Path], tmp_path: Path) -> Write:
    """A function of the tokens of the shortest runs that writes a whole study and returns its path."""

    def write(tokens: int) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(a_study(write_texts(tmp_path / "texts", 200, 300), tokens)))
        return path

    return write


def a_study(texts: Path, tokens: int) -> dict[str, Any]:
    grid = {"model.d_model": [8, 16], "model.d_ff": [24, 48]}
    return {
        "name": "tiny",
        "title": "Which tiny model?",
        "data": {"sources": [str(texts)], "vocab_size": 300, "validation_share": 0.2},
        "base": {
            "model": MODEL,
            "train": {
                "tokens": tokens,
                "seq_len": 32,
                "batch_tokens": 128,
                "learning_rate": 0.02,
                "eval_tokens": 2000,
                "threads": 1,
                "precision": "fp32",
            },
        },
        "sweep": {"values": [0.01, 0.03], "runs": [{"name": "sweep"}]},
        "runs": [
            {"name": "dense", "zip": grid, "set": {"train.tokens": [tokens, 2 * tokens, 4 * tokens]}},
            {"name": "repeat", "set": {"train.seed": 1}},
            {
                "name": "moe",
                "set": {
                    "model.moe": {"n_experts": 4, "top_k": 2, "d_expert": 24},
                    "train.tokens": [tokens, 2 * tokens, 4 * tokens],
                },
            },
        ],
        "fit": {"laws": ["ludziejewski2025", "hoffmann2022"], "bootstrap": 20, "holdout": 0.2},
        "verify": {"strict": True},
        "plan": {
            "flops_times": 2,
            "max_params": 40_000,
            "space": {
                "d_model": [8, 16],
                "n_layers": [2],
                "aspect": [4, 8],
                "head_dim": [8],
                "heads_per_kv": [1],
                "ffn_ratio": [3],
                "n_experts": [4],
                "top_k": [2],
                "n_shared_experts": [0],
                "n_dense_layers": [0],
                "d_expert_step": 8,
                "d_ff_step": 8,
                "min_d_expert": 8,
                "vocab_size": 300,
                "seq_len": 32,
                "tie_embeddings": True,
            },
        },
    }


def losses(out: Path) -> dict[str, Any]:
    records = [json.loads(path.read_text()) for path in sorted((out / "runs").glob("*/record.json"))]
    return {record["run_id"]: (record["loss"], record["loss_curve"]) for record in records}


@pytest.mark.dist
def test_the_whole_loop_then_again_then_another_study(write_study: Write, tmp_path: Path) -> None:
    path, out = write_study(1280), tmp_path / "out"
    outcome = run_study(load_study(str(path)), out, workers=2, quiet=True)
    assert len(outcome.trained) == 10
    assert outcome.noise is not None
    assert outcome.plan is not None
    roles = {each.role for each in outcome.verified}
    if outcome.plan.best.is_moe:
        assert roles == {"recommended", "best_dense", "strict_dense", "strict_moe"}
        dense, moe = (next(v.record for v in outcome.verified if v.role == f"strict_{k}") for k in ("dense", "moe"))
        assert moe.unique_tokens <= dense.tokens
        assert moe.train_flops == pytest.approx(dense.train_flops, rel=0.1)
        assert moe.params_total == pytest.approx(dense.params_total, rel=0.1)
    else:
        assert roles == {"recommended", "best_moe"}
    assert "<html" in (out / "report.html").read_text()
    assert json.loads((out / "plan.json").read_text())["candidates"]
    stamps = {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*") if p.is_file()}
    again = run_study(load_study(str(path)), out, workers=2, quiet=True)
    assert again.answer == outcome.answer
    assert stamps == {p: p.stat().st_mtime_ns for p in (out / "runs").rglob("*") if p.is_file()}
    other = load_study(str(path)).replace(verify={"seeds": [0, 1]})
    with pytest.raises(InputError, match="holds another study"):
        run_study(other, out, quiet=True)


def test_wrong_names_are_refused_before_anything_is_trained(write_study: Write, tmp_path: Path) -> None:
    study = load_study(str(write_study(1280)))
    wrong = {
        "fit.laws: law: no such law 'bogus'": study.replace(fit={"laws": ["bogus"]}),
        "plan.space: bogus: unknown key": study.replace(plan={"space": {"bogus": 1}}),
        "serving.hardware: hardware: no such device 'bogus'": study.replace(serving={"hardware": "bogus"}),
    }
    for message, config in wrong.items():
        with pytest.raises(InputError, match=message):
            run_study(config, tmp_path / "out", quiet=True)
        with pytest.raises(InputError, match=message):
            study_steps(config, "data")
    assert not (tmp_path / "out").exists()


def test_before_its_first_run_a_study_may_change(write_study: Write, tmp_path: Path) -> None:
    study = load_study(str(write_study(1280)))
    folder = StudyFolder(tmp_path / "out")
    folder.claim(study)
    folder.claim(study.replace(verify={"seeds": [0, 1]}))
    folder.runs.mkdir()
    with pytest.raises(InputError, match="holds another study"):
        folder.claim(study)


def start(path: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "moelab", "study", str(path), "--out", str(out), "--workers", "2"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


@pytest.mark.dist
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds worker processes through /proc")
def test_killed_in_any_of_its_steps_a_study_ends_the_same(write_study: Write, tmp_path: Path) -> None:
    path = write_study(12_800)
    undisturbed, out = tmp_path / "a", tmp_path / "b"
    assert start(path, undisturbed).wait(600) == 0
    for round_number, delay in enumerate((5.0, 6.0)):
        process = start(path, out)
        time.sleep(delay)
        victims = children(process.pid)
        if round_number % 2 and victims:
            os.kill(victims[-1], signal.SIGKILL)
            time.sleep(2.0)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.6)
    assert start(path, out).wait(600) == 0
    assert losses(out) == losses(undisturbed)
