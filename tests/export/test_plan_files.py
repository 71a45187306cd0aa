"""The files that train a plan: the run config, config.json, torchtitan's and Megatron-LM's settings, the plan."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from moelab.errors import InputError
from moelab.export.families import choose_family
from moelab.export.launch import Launch, launch_of, pieces
from moelab.export.plan_files import FILES, run_config, write_plan
from moelab.planning import Budget, Plan, Space
from moelab.planning.plan import plan
from moelab.runs.load_run import read_run_config

SPACE = Space.parse(
    {
        "d_model": [256, 512], "n_layers": [4, 8], "aspect": [32, 128], "head_dim": 64, "heads_per_kv": 2,
        "n_experts": [8, 16], "top_k": [2, 4], "ffn_ratio": 3, "vocab_size": 4096, "seq_len": 512,
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def planned() -> Plan:
    return plan(Budget.parse({"flops": 1e18}, "plan"), ["ludziejewski2025"], SPACE)


def test_every_file_is_written_and_holds_the_plan(planned: Plan, tmp_path: Path) -> None:
    files = write_plan(planned, tmp_path / "out")
    assert set(files.written) | set(files.left_out) == set(FILES)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(files.written)
    assert json.loads((tmp_path / "out/plan.json").read_text())["candidates"][0]["label"] == planned.best.label
    settings = json.loads((tmp_path / "out/config.json").read_text())
    assert settings["architectures"] == [choose_family(planned.best.config).class_name]
    assert settings["hidden_size"] == planned.best.config.d_model
    again = write_plan(planned, tmp_path / "out")  # an earlier plan's files are replaced
    assert again.written == files.written


def test_a_failure_leaves_no_file(planned: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All contents are made before any is written."""

    def fail(_: Plan) -> None:
        raise ValueError("no such number")

    monkeypatch.setattr(Plan, "to_dict", fail)
    with pytest.raises(ValueError, match="no such number"):
        write_plan(planned, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_train_takes_the_run_and_asks_for_its_data(planned: Plan, tmp_path: Path) -> None:
    write_plan(planned, tmp_path)
    with pytest.raises(InputError, match=r"^data\.path: a plan leaves the data to choose"):
        read_run_config(tmp_path / "run.yaml")
    run = read_run_config(tmp_path / "run.yaml", ["data.path=text"])
    best = planned.best
    assert run.model == best.config
    assert run.train.learning_rate == best.learning_rate
    assert run.train.tokens == best.tokens
    assert run.train.batch_tokens == pytest.approx(best.batch_tokens, abs=run.train.seq_len / 2 + 1)


def test_repeated_data_is_part_of_the_run(launched: Callable[..., Launch]) -> None:
    assert run_config(launched(unique_tokens=500_000)).data.unique_tokens == 500_000
    assert run_config(launched()).data.unique_tokens is None


def test_a_folder_with_other_files_is_refused(planned: Plan, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"^--out: .* holds other files \(notes\.txt\)"):
        write_plan(planned, tmp_path)
    with pytest.raises(InputError, match=r"^--out: expected a folder"):
        write_plan(planned, tmp_path / "notes.txt")


def test_the_batch_is_whole_for_every_device(planned: Plan) -> None:
    launch = launch_of(planned)
    assert launch.batch * SPACE.seq_len == launch.train.batch_tokens
    assert launch.batch % launch.micro_batch == 0


def test_pieces_are_even() -> None:
    assert pieces(54, 16) == [3] * 5 + [4] * 6 + [3] * 5
    assert sum(pieces(7, 4)) == 7


def test_the_files_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import moelab.export.plan_files"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("layout", "multiple"), [("pp=2,dp=4", 2 * 4), ("pp=2,dp=4,vp=2", 2 * 4 * 2)])
def test_the_batch_is_whole_for_the_layout_and_its_interleaved_pipeline(
    planned: Plan, layout: str, multiple: int
) -> None:
    """Megatron-LM's interleaved schedule takes micro-batches in groups of the pipeline's stages."""
    training = {"predicted": True, "layout": layout, "micro_batch": 2, "recompute": "none"}
    best = replace(planned.best, training=training, batch_tokens=512 * 101)
    launch = launch_of(replace(planned, candidates=[best]))
    assert launch.batch % multiple == 0
    assert launch.batch > 0
    assert launch.train.batch_tokens == launch.batch * 512
