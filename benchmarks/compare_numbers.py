"""Compare what two versions of moelab computed: every key and number must be equal, text may differ.

    python benchmarks/compare_numbers.py OLD.json NEW.json
    python benchmarks/compare_numbers.py old/runs.csv new/runs.csv --ignore seconds --ignore tokens_per_second
    python benchmarks/compare_numbers.py OLD_STUDY NEW_STUDY --measured

Takes JSON, CSV, or two folders, whose JSON and CSV files are compared by their path. Numbers, true, false and null are
compared exactly, and so is the text under the names in EXACT. `--measured` ignores what no two runs share: times,
speeds and memory. Prints every difference as PLACE: OLD -> NEW. Exit code 1 where there is one.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EXACT = ("run_id", "law", "unit", "data_hash", "manifest_hash")
"""Names whose text must be equal too."""
MEASURED = ("seconds", "tokens_per_second", "peak_memory_bytes", "resumed", "versions")
"""What no two runs share, and the versions of the packages."""


def differences(old: Any, new: Any, ignore: frozenset[str] = frozenset(), place: str = "") -> Iterator[str]:
    """Every difference of two values of plain data, each as one line; `ignore` names keys that are left out."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key in ignore:
                continue
            inner = f"{place}.{key}" if place else str(key)
            if key not in new:
                yield f"{inner}: only in the old"
            elif key not in old:
                yield f"{inner}: only in the new"
            else:
                yield from differences(old[key], new[key], ignore, inner)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{place}: {len(old)} entries -> {len(new)}"
        for number, (left, right) in enumerate(zip(old, new, strict=False)):
            yield from differences(left, right, ignore, f"{place}[{number}]")
    elif isinstance(old, str) and isinstance(new, str):
        if old != new and place.rpartition(".")[2] in EXACT:
            yield f"{place}: {old} -> {new}"
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield f"{place}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read(path: Path) -> Any:
    """A JSON file's value; a CSV file as a list of rows, an empty cell as None, numbers as numbers."""
    if path.suffix != ".csv":
        return json.loads(path.read_text(encoding="utf-8"))
    with path.open(encoding="utf-8", newline="") as stream:
        return [{name: _cell(name, text) for name, text in row.items()} for row in csv.DictReader(stream)]


def _cell(name: str, text: str) -> Any:
    if name in EXACT:  # 12345e6789 is a run id
        return text
    try:
        return float(text) if text else None
    except ValueError:
        return text


def compare(old: Path, new: Path, ignore: frozenset[str] = frozenset()) -> list[str]:
    """The differences of two files, or of all JSON and CSV files below two folders."""
    if not old.is_dir():
        return list(differences(read(old), read(new), ignore))
    names = [{path.relative_to(folder) for path in files(folder)} for folder in (old, new)]
    found = [f"{name}: only in the old" for name in sorted(names[0] - names[1])]
    found += [f"{name}: only in the new" for name in sorted(names[1] - names[0])]
    for name in sorted(names[0] & names[1]):
        found += [f"{name}: {each}" for each in differences(read(old / name), read(new / name), ignore)]
    return found


def files(folder: Path) -> Iterator[Path]:
    """The JSON and CSV files below a folder."""
    return (path for path in folder.rglob("*") if path.suffix in (".json", ".csv") and path.is_file())


def numbers(value: Any) -> int:
    """How many numbers stand in a value of plain data."""
    if isinstance(value, dict):
        return sum(numbers(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(numbers(inner) for inner in value)
    return int(isinstance(value, int | float) and not isinstance(value, bool))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--ignore", action="append", default=[], metavar="NAME", help="leave out this key or column")
    parser.add_argument("--measured", action="store_true", help=f"leave out {', '.join(MEASURED)}")
    given = parser.parse_args()
    ignore = frozenset((*given.ignore, *(MEASURED if given.measured else ())))
    found = compare(given.old, given.new, ignore)
    for each in found:
        print(each)
    there = [given.old] if given.old.is_file() else list(files(given.old))
    total = sum(numbers(read(path)) for path in there)
    print(f"{len(there)} files, {total:,} numbers, {len(found)} differences")
    raise SystemExit(1 if found or not there else 0)


if __name__ == "__main__":
    main()
