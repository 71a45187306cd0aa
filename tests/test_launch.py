"""The launch files are read as far as no cluster is needed: syntax, and sizes that fit the run that they start."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from moelab.runs import RunConfig

LAUNCH = Path(__file__).parent.parent / "configs" / "launch"
RUN = RunConfig.from_yaml(LAUNCH / "mesh.yaml")


def parsed(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((LAUNCH / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["torchrun.sh", "slurm.sh"])
def test_scripts_are_shell(name: str) -> None:
    assert subprocess.run(["sh", "-n", str(LAUNCH / name)], capture_output=True).stderr == b""


def test_skypilot_runs_shell() -> None:
    (task,) = parsed("skypilot.yaml")
    assert subprocess.run(["sh", "-n"], input=task["run"].encode(), capture_output=True).stderr == b""
    assert task["num_nodes"] * int(task["resources"]["accelerators"].partition(":")[2]) == RUN.train.processes


def test_slurm_asks_for_the_mesh() -> None:
    text = (LAUNCH / "slurm.sh").read_text(encoding="utf-8")
    asked = {key: int(value) for key, value in re.findall(r"#SBATCH --([a-z-]+)=(\d+)", text)}
    assert asked["nodes"] * asked["gpus-per-node"] == RUN.train.processes


def test_kubernetes_asks_for_the_mesh() -> None:
    service, job = parsed("kubernetes.yaml")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(environment["NODES"])
    assert int(environment["NODES"]) * gpus == RUN.train.processes
    assert environment["HEAD"] == f"moelab-0.{pod['subdomain']}:{service['spec']['ports'][0]['port']}"
    assert pod["subdomain"] == service["metadata"]["name"]


def test_neighbours_share_the_experts_out() -> None:
    assert RUN.train.parallel is not None
    assert RUN.train.parallel.expert == 8
