"""The files that train a plan: a run config, config.json, settings of torchtitan and Megatron-LM, the plan."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moelab.config import dump_yaml
from moelab.errors import InputError
from moelab.export.families import choose_family
from moelab.export.hf_config import hugging_face_config
from moelab.export.launch import Launch, launch_of
from moelab.export.megatron import megatron_text
from moelab.export.torchtitan import torchtitan_text
from moelab.files import finite, make_folder, write_json, write_text
from moelab.planning import Plan
from moelab.runs.config import DATA_PLACEHOLDER, DataConfig, RunConfig

FILES = ("run.yaml", "config.json", "torchtitan.py", "megatron.args", "plan.json")


@dataclass(frozen=True)
class PlanFiles:
    """What was written to `folder`, and for every file that was not: the reason in one line."""

    folder: Path
    written: tuple[str, ...]
    left_out: dict[str, str]

    @property
    def lines(self) -> list[str]:
        """For people: what was written, and why a file was not."""
        wrote = f"Wrote {', '.join(self.written)} to {self.folder}"
        lines = [wrote, *(f"No {name}: {reason}" for name, reason in self.left_out.items())]
        windows = any("sliding_" in reason for reason in self.left_out.values())
        return [*lines, "The default space has full attention, which all these engines take."] if windows else lines

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {"folder": str(self.folder), "written": list(self.written), "left_out": self.left_out}


def check_plan_folder(out: str | Path) -> Path:
    """A folder that a plan may be written to: absent, empty, or one that holds an earlier plan's files alone.

    Raises InputError for another place.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out: expected a folder, {folder} is a file")
    other = sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.is_dir() else []
    if other:
        raise InputError(f"--out: {folder} holds other files ({other[0]}); give an empty or a new folder")
    return make_folder(folder, "--out")


def write_plan(plan: Plan, out: str | Path) -> PlanFiles:
    """Write the recommended design of a plan for those who train it; needs no torch.

    A file whose engine cannot express the design is left out, and an earlier one of its name is removed. All contents
    are made before any is written. Raises InputError where the folder holds other files or cannot be made, MoelabError
    where the disk refuses.
    """
    folder = check_plan_folder(out)
    launch = launch_of(plan)
    contents: dict[str, Callable[[], Any]] = {
        "run.yaml": lambda: _run_text(launch),
        "config.json": lambda: hugging_face(launch),
        "torchtitan.py": lambda: torchtitan_text(launch),
        "megatron.args": lambda: megatron_text(launch),
        "plan.json": lambda: finite(plan.to_dict()),
    }
    made, left_out = _made(contents)
    for name in left_out:
        (folder / name).unlink(missing_ok=True)
    for name, content in made.items():
        (write_text if isinstance(content, str) else write_json)(folder / name, content)
    return PlanFiles(folder, tuple(made), left_out)


def _made(contents: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The content of every file, and the reason for each that the design has not."""
    made, left_out = {}, {}
    for name in FILES:
        try:
            made[name] = contents[name]()
        except InputError as error:
            left_out[name] = str(error)
    return made, left_out


def hugging_face(launch: Launch) -> dict[str, Any]:
    """config.json of the first class of transformers that has the design; InputError where none has."""
    family = choose_family(launch.model)
    return hugging_face_config(launch.model, family, "bf16", launch.train.seq_len, None)


def run_config(launch: Launch) -> RunConfig:
    """The run; `moelab train` refuses its placeholder of data. InputError where moelab cannot train the model."""
    if launch.model.unbuildable:
        raise InputError(f"model: moelab counts but cannot train {launch.model.unbuildable}")
    data = DataConfig(path=DATA_PLACEHOLDER, unique_tokens=launch.unique_tokens)
    return RunConfig(model=launch.model, data=data, train=launch.train)


def _run_text(launch: Launch) -> str:
    head = (
        "# moelab train run.yaml --set data.path=FOLDER\n"
        "# FOLDER is what `moelab data prepare` wrote, with the model's vocabulary.\n"
        f"# Learning rate and batch: {launch.rule}.\n"
    )
    return head + dump_yaml(run_config(launch).to_dict())
