"""The house plan holds: rooms import one way, the desk half never imports torch, and --help imports typer alone."""

import ast
import functools
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SRC = TESTS.parent / "src" / "moelab"
ROOMS = (
    "architecture",
    "runs",
    "laws",
    "report",
    "fitting",
    "serving",
    "planning",
    "data",
    "model",
    "evaluation",
    "training",
    "experiments",
    "executors",
    "studies",
    "export",
    "app",
    "cli",
)
DESK = ROOMS[: ROOMS.index("data")]
PRESENT = [room for room in ROOMS if (SRC / room).is_dir()]


@functools.cache
def imported_modules(path: Path) -> frozenset[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def test_every_folder_is_a_room() -> None:
    folders = {p.name for p in SRC.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders <= set(ROOMS)


@pytest.mark.parametrize("room", PRESENT)
def test_a_room_imports_only_rooms_before_it(room: str) -> None:
    later = ROOMS[ROOMS.index(room) + 1 :]
    for path in (SRC / room).rglob("*.py"):
        for name in imported_modules(path):
            parts = name.split(".")
            imported = parts[1] if parts[0] == "moelab" and len(parts) > 1 else ""
            assert imported not in later, f"{path.relative_to(SRC)} imports {name}"


@pytest.mark.parametrize("path", [p for p in SRC.glob("*.py") if not p.name.startswith("__")], ids=lambda p: p.name)
def test_root_modules_import_no_room(path: Path) -> None:
    rooms = {name.split(".")[1] for name in imported_modules(path) if name.startswith("moelab.")}
    assert not rooms & set(ROOMS)


@pytest.mark.parametrize("room", [room for room in DESK if room in PRESENT])
def test_the_desk_half_never_imports_torch(room: str) -> None:
    for path in (SRC / room).rglob("*.py"):
        assert not any(name.split(".")[0] == "torch" for name in imported_modules(path)), path


def test_the_desk_half_loads_without_torch() -> None:
    rooms = ", ".join(f"moelab.{room}" for room in DESK if room in PRESENT)
    code = f"import sys; sys.modules['torch'] = None; import {rooms}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from moelab.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'polars', 'scipy', 'torch', 'altair', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def module_files() -> dict[str, Path]:
    """Module -> its file."""
    return {
        ".".join(("moelab", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in SRC.rglob("*.py")
    }


def import_graph() -> dict[str, set[str]]:
    """Module -> the modules of moelab that it imports anywhere, inside functions and for types included."""
    paths, graph = module_files(), {}
    for module, path in paths.items():
        names = imported_modules(path)
        # `from package import module` takes the module; the package's own file counts where a name of it is taken.
        packages = {name for name in names if any(f"{name}.{other.rsplit('.', 1)[-1]}" in names for other in names)}
        submodules_only = {
            package
            for package in packages
            if all(other in paths for other in names if other.rsplit(".", 1)[0] == package)
        }
        graph[module] = (names & set(paths)) - submodules_only - {module}
    return graph


def test_no_circle_of_imports() -> None:
    graph = import_graph()
    while leaves := [module for module, imported in graph.items() if not imported & set(graph)]:
        for module in leaves:
            del graph[module]
    assert not graph, "these modules import each other in a circle: " + ", ".join(sorted(graph))


def test_no_module_is_shadowed_by_a_name_of_its_package() -> None:
    pytest.importorskip("torch")
    shadowed = []
    for module, path in module_files().items():
        package, _, name = module.rpartition(".")
        needs_triton = "triton" in imported_modules(path) and importlib.util.find_spec("triton") is None
        if package and name != "__main__" and not needs_triton:
            loaded = importlib.import_module(module)
            if getattr(importlib.import_module(package), name) is not loaded:
                shadowed.append(module)
    assert not shadowed


def test_tests_take_public_names_alone() -> None:
    imports = re.compile(r"^[ \t]*from moelab[\w.]* import (\([^)]*\)|[^\n]*)", re.MULTILINE)
    private = [
        f"{path.relative_to(TESTS)}: {name}"
        for path in TESTS.rglob("*.py")
        for names in imports.findall(path.read_text(encoding="utf-8"))
        for name in re.findall(r"\b_\w+", names)
    ]
    assert not private
