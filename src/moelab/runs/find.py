"""A run by its folder, by the start of its id, or by its name: one resolver for every command that takes a run."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from moelab.config import load_yaml
from moelab.errors import InputError
from moelab.runs.folder import CONFIG

RUNS, STUDIES = Path("runs"), Path("studies")
"""Where runs are looked for that are given without a folder: what `moelab train` and `moelab study` write."""
_FILES = (".yaml", ".yml", ".json", ".gguf")
"""Suffixes of what cannot be a run's name; other dots can: a study names its runs `d32 L2 ff64 0.5M`."""
_LISTED = 6


def find_run(run: str | Path, root: str | Path | None = None) -> Path:
    """The folder of a run.

    `run` is that folder, an id, the start of one, or a run's name; before it may stand the folder that holds the runs
    (`studies/quickstart/3f2a`). Without one, `root` (or its folder `runs`) is searched; where that is None, `runs` and
    every study's runs. Raises InputError where there is no such run, and where several are meant, naming them.
    """
    path = Path(run)
    if (path / CONFIG).is_file():
        return path
    if path.is_dir():
        raise InputError(f"run: {run} is not a run folder (it holds no {CONFIG})")
    places = _places(path, root)
    found = _matches(path.name, places)
    if not found:
        searched = ", ".join(str(place) for place in places) or f"{RUNS} and {STUDIES}/*/runs"
        raise InputError(f"run: no run folder, id or name {str(run)!r} in {searched}; `moelab runs FOLDER` lists them")
    if len(found) > 1:
        raise InputError(f"run: {str(run)!r} is ambiguous: {_listed(found)}; give more of the id, or the folder")
    return next(iter(found))


def matching_runs(run: str | Path, root: str | Path) -> list[Path]:
    """The folders in `root` of the runs that `run` may mean: that folder, an id, the start of one, or a run's name."""
    return [Path(run)] if (Path(run) / CONFIG).is_file() else list(_matches(Path(run).name, _places(Path(run), root)))


def find_design(config: str | Path) -> str:
    """CONFIG of a command with a run's id or name turned into its folder; everything else as it is.

    Raises InputError where a name or the start of an id means several runs.
    """
    path = Path(config)
    if path.exists() or path.suffix in _FILES:
        return str(config)
    found = _matches(path.name, _places(path, None))
    if len(found) > 1:
        raise InputError(f"config: {str(config)!r} is ambiguous: {_listed(found)}; give more of the id, or the folder")
    return str(next(iter(found), config))


def _places(path: Path, root: str | Path | None) -> list[Path]:
    """The folders of runs to search."""
    if path.parent != Path("."):
        places = [path.parent, path.parent / "runs"]
    elif root is not None:
        places = [Path(root), Path(root) / "runs"]
    else:
        places = [RUNS, *sorted(STUDIES.glob("*/runs"))]
    return [place for place in places if place.is_dir()]


def _matches(wanted: str, places: Iterable[Path]) -> dict[Path, str]:
    """The runs that are meant, with their names: the one of this id, else all whose id begins so or whose name it is.

    A run that lies in several places counts once, in the first.
    """
    folders: dict[str, Path] = {}
    for folder in _run_folders(places):
        folders.setdefault(folder.name, folder)
    if wanted in folders:
        return {folders[wanted]: ""}
    if not wanted:
        return {}
    found = {}
    for run_id, folder in folders.items():
        name = _name(folder, wanted)
        if name == wanted or run_id.startswith(wanted):
            found[folder] = name
    return found


def _run_folders(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        yield from (folder for folder in sorted(place.iterdir()) if (folder / CONFIG).is_file())


def _name(folder: Path, wanted: str) -> str:
    """The run's name where it may be the one wanted or is needed to list the run; configs are parsed only then."""
    try:
        text = (folder / CONFIG).read_text(encoding="utf-8")
        if wanted in text or folder.name.startswith(wanted):
            return str(load_yaml(folder / CONFIG).get("name") or "")
    except (OSError, UnicodeDecodeError, InputError):
        pass
    return ""


def _listed(found: dict[Path, str]) -> str:
    each = [f"{folder.name} ({name})" if name else folder.name for folder, name in found.items()]
    return ", ".join(each[:_LISTED]) + (f" and {len(each) - _LISTED} more" if len(each) > _LISTED else "")
