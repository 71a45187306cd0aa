"""Files that are whole or absent: written beside their name, flushed, then renamed into place."""

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moelab.errors import InputError, MoelabError
from moelab.printable import short

MOST_NESTED = 64
"""Lists and mappings of a JSON file inside one another; what moelab and its peers write has ten at most."""
MOST_DIGITS = 300
"""Digits of a whole number in a JSON file."""


def make_folder(path: Path, field: str = "path") -> Path:
    """Create a folder and its parents, or raise InputError: one line, why it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{field}: cannot create the folder {path}: {error.strerror}") from error
    return path


def write_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file in the same folder, flush it to disk, and rename it to `path`."""
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise MoelabError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def part_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` to fill and `put_folder`; what is still there when the block ends is removed."""
    place = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    try:
        place.chmod(0o755)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def put_folder(place: Path, out: Path) -> None:
    """Flush the files of a finished folder to disk and rename it to `out`, moving an old one out of the way first."""
    for path in place.iterdir():
        with open(path, "rb") as stream:
            os.fsync(stream.fileno())
    if not out.exists():
        os.replace(place, out)
        return
    with part_folder(out) as old:
        os.replace(out, old / "old")
        os.replace(place, out)


def drop_parts(out: Path) -> None:
    """Remove what killed calls left beside `out`; whoever calls this must be alone in building it."""
    for stale in out.parent.glob(f".{out.name}.*.part"):
        shutil.rmtree(stale, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_with(path, write)


def write_text(path: Path, content: str) -> None:
    """Write text (UTF-8) atomically."""
    write_bytes(path, content.encode())


def finite(value: Any) -> Any:
    """The value as JSON can hold it: null for NaN and infinity, text keys, lists for tuples, Python's own numbers."""
    if isinstance(value, dict):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if hasattr(value, "tolist"):  # arrays and scalars of NumPy
        return finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity are refused, for JSON has no such numbers (`finite` makes them null)."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_text(path: Path, field: str = "file") -> str:
    """Read UTF-8 text, or raise InputError: one line, why it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{field}: no such file: {path}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{field}: {path} is not UTF-8 text") from error
    except OSError as error:
        raise InputError(f"{field}: cannot read {path}: {error.strerror}") from error


def read_json(path: Path, field: str = "file") -> Any:
    """Read JSON. Raises InputError in one line that names `field` and the file."""
    return parse_json(read_text(path, field), f"{field}: {path}")


def parse_json(text: str, where: str) -> Any:
    """JSON text as plain data. Raises InputError naming `where`.

    Refused are also a key that stands twice, of which Python takes the last, and values nested deeper than
    `MOST_NESTED` or whole numbers that no 64-bit float can hold: other code fails on them later, with other errors.
    """
    try:
        value = json.loads(text, parse_int=_whole, object_pairs_hook=_each_once)
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not valid JSON (line {error.lineno}: {error.msg})") from None
    except RecursionError:
        raise InputError(f"{where} is nested deeper than {MOST_NESTED} levels") from None
    except ValueError as error:
        raise InputError(f"{where} {error}") from None
    if nested_deeper(value, MOST_NESTED):
        raise InputError(f"{where} is nested deeper than {MOST_NESTED} levels")
    return value


@contextmanager
def expect_content(complaint: str) -> Iterator[None]:
    """Within this block, plain data read from a file that lacks a key or holds another type is an InputError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
        raise InputError(complaint) from None


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"holds a whole number of more than {MOST_DIGITS} digits")
    return int(digits)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"names the key {short(twice)} twice")
    return value


def nested_deeper(value: Any, levels: int) -> bool:
    """Whether lists and mappings stand in one another more than so many times."""
    inside = [value]
    for _ in range(levels):
        inside = [inner for outer in inside if isinstance(outer, dict | list) for inner in _values(outer)]
        if not inside:
            return False
    return True


def _values(outer: dict[str, Any] | list[Any]) -> list[Any]:
    """What of a list or mapping may hold more."""
    values = outer.values() if isinstance(outer, dict) else outer
    return [value for value in values if isinstance(value, dict | list)]


def sha256_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """The SHA-256 of a JSON value in canonical form: the same content always hashes the same."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; some systems cannot sync a folder, and there it is skipped."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
