"""Options of executors: units, the executor that takes each, and packages that are missing."""

from typing import Any

import pytest

from moelab.errors import InputError
from moelab.executors import ExecutorConfig, session


class TestOptions:
    def test_options_of_another_executor_are_refused(self) -> None:
        with pytest.raises(InputError, match="partition: only the executor slurm takes it, not local"):
            ExecutorConfig().with_options(None, ["partition=gpu"])

    def test_units_and_lists(self) -> None:
        options = ExecutorConfig().with_options("slurm", ["time=2h", "memory=8GB", "setup=[module load cuda]"])
        assert (options.time, options.memory, options.setup) == (7200.0, 8e9, ["module load cuda"])

    @pytest.mark.parametrize(
        ("option", "complaint"),
        [
            ("time", "expected KEY=VALUE"),
            ("time=soon", "time: expected a number such as 50ms"),
            ("setup=[module", r"--executor-option setup: cannot read the value '\[module'"),
            ("tme=2h", "did you mean 'time'"),
        ],
    )
    def test_bad_options_are_named(self, option: str, complaint: str) -> None:
        with pytest.raises(InputError, match=complaint):
            ExecutorConfig().with_options("slurm", [option])

    def test_an_unknown_executor(self) -> None:
        with pytest.raises(InputError, match="kind: input should be 'local', 'ray' or 'slurm', got 'k8s'"):
            ExecutorConfig().with_options("k8s", [])

    def test_no_slurm_here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("submitit")
        monkeypatch.setenv("PATH", "")
        with pytest.raises(InputError, match=r"no Slurm here .* cluster=local"), session(ExecutorConfig(kind="slurm")):
            pass

    @pytest.mark.parametrize(("kind", "module"), [("ray", "ray"), ("slurm", "submitit")])
    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch, kind: Any, module: str) -> None:
        import importlib.util

        real = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else real(name))
        with pytest.raises(InputError, match=r"pip install 'moelab\[cluster\]'"), session(ExecutorConfig(kind=kind)):
            pass


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (0, "share: input should be greater than 0, or 'auto', got 0"),
        (33, "share: input should be less than or equal to 32, or 'auto', got 33"),
        (2.5, "share: expected a whole number, or 'auto', got 2.5"),
        ([2], r"share: expected a number, or 'auto', got \[2\]"),
        (
            "many",
            r"share: expected a number such as 1e21, 300B or 20M \(suffixes: K, M, B, G, T\), or 'auto', got 'many'",
        ),
    ],
)
def test_a_number_or_a_word_is_one_complaint(share: object, message: str) -> None:
    with pytest.raises(InputError, match=f"^study: {message}$"):
        ExecutorConfig.parse({"share": share}, "study")
