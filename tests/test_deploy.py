"""The container file and the Space: every file, extra, option, port and user that they name exists."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from moelab.cli import root as commands

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
FILES = {"container": DEPLOY / "Containerfile", "space": DEPLOY / "space" / "Dockerfile"}


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder that each file is built from."""
    space = tmp_path_factory.mktemp("space") / "my-space"
    subprocess.run(["sh", str(DEPLOY / "space" / "assemble.sh"), str(space)], check=True, capture_output=True)
    return {"container": ROOT, "space": space}


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def instructions(name: str) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) of a container file, in order."""
    lines = FILES[name].read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line and not line.startswith("#")]


def of(name: str, instruction: str) -> list[str]:
    return [arguments for each, arguments in instructions(name) if each == instruction]


def command(name: str) -> list[str]:
    """What the container runs."""
    (found,) = of(name, "ENTRYPOINT") or of(name, "CMD")
    return list(yaml.safe_load(found))


def test_every_file_that_is_copied_exists(name: str, contexts: dict[str, Path]) -> None:
    sources = [source for each in of(name, "COPY") for source in each.split()[:-1]]
    assert {"pyproject.toml", "LICENSE", "src"} <= set(sources)
    assert [source for source in sources if not (contexts[name] / source).exists()] == []


def test_what_the_build_reads_is_copied(name: str, contexts: dict[str, Path]) -> None:
    project: dict[str, Any] = tomllib.loads((contexts[name] / "pyproject.toml").read_text())["project"]
    needed = {project["readme"], *project["license-files"], *("src",)}
    there = {source for each in of(name, "COPY") for source in each.split()[:-1]}
    there |= {words[2] for run in of(name, "RUN") for words in [run.split()] if words[0] == "mv"}
    assert needed <= there


def test_every_extra_that_is_installed_exists(name: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [
        extra for run in of(name, "RUN") for group in re.findall(r"'\.\[(.*?)\]'", run) for extra in group.split(",")
    ]
    assert asked == ["app"]
    assert set(asked) <= set(extras)


def test_the_python_is_one_that_the_package_supports(name: str) -> None:
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim", of(name, "FROM")[0])
    assert version is not None
    assert (int(version[1]), int(version[2])) >= (3, 11)


def test_the_command_exists_with_its_options_and_port(name: str) -> None:
    program, word, *options = command(name)
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    app = typer.main.get_command(commands).get_command(None, word)  # type: ignore[attr-defined,arg-type]
    known = {flag for parameter in app.params for flag in parameter.opts}
    assert {option for option in options if option.startswith("--")} <= known
    assert options[options.index("--port") + 1] == of(name, "EXPOSE")[0]
    assert options[options.index("--host") + 1] == "0.0.0.0"


def test_it_runs_as_a_user_that_it_makes(name: str) -> None:
    made = [shlex.split(run)[-1] for run in of(name, "RUN") if run.startswith("useradd")]
    assert made == of(name, "USER")


def test_the_head_of_the_space_fits_its_file(contexts: dict[str, Path]) -> None:
    head = yaml.safe_load((contexts["space"] / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert head["sdk"] == "docker"
    assert str(head["app_port"]) == of("space", "EXPOSE")[0]
    assert len(head["short_description"]) <= 60
    assert {head["colorFrom"], head["colorTo"]} <= {
        "red",
        "yellow",
        "green",
        "blue",
        "indigo",
        "purple",
        "pink",
        "gray",
    }
    assert not list(contexts["space"].rglob("__pycache__"))


def test_a_folder_that_exists_is_not_written_over(tmp_path: Path) -> None:
    ran = subprocess.run(["sh", str(DEPLOY / "space" / "assemble.sh"), str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 2
    assert "exists" in ran.stderr
