"""Whether a prepared folder still holds what its manifest lists: every file hashed, once for each change.

A stamp in the folder remembers size, time and inode of the files that were hashed. It proves nothing against who writes
it on purpose; it spares hashing terabytes before each of a hundred runs.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from moelab.errors import InputError, MoelabError
from moelab.files import sha256_file, write_json

STAMP = ".verified.json"
_verified: dict[Path, Any] = {}
"""Stamps of folders that this process verified and could not write to."""


def check_hashes(folder: Path, files: dict[str, str]) -> None:
    """Hash every file. Raises InputError naming the one that differs."""
    for name, sha256 in files.items():
        try:
            found = sha256_file(folder / name)
        except OSError as error:
            raise InputError(f"data: cannot read {folder / name}: {error.strerror}") from error
        if found != sha256:
            raise InputError(f"data: {folder / name} was changed: its hash is not the manifest's")


class Stamp:
    """What the files of a folder looked like when their hashes were last right."""

    def __init__(self, folder: Path, manifest_hash: str, files: dict[str, str]) -> None:
        """Looks at the files now: a change while they are hashed shows at the next call."""
        self._path = folder / STAMP
        states = {name: self._state(folder / name) for name in files}
        self._value = {"manifest_hash": manifest_hash, "files": states}

    @staticmethod
    def _state(path: Path) -> list[int]:
        """Raises InputError where the file is gone."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"data: cannot read {path}: {error.strerror}") from error
        return [status.st_size, status.st_mtime_ns, status.st_ino]

    def holds(self) -> bool:
        """Whether these very files were verified before."""
        try:
            found = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            found = _verified.get(self._path)
        return bool(found == self._value)

    def drop(self) -> None:
        """Forget the folder: a file was found to differ, even under the same size and time."""
        _verified.pop(self._path, None)
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def put(self) -> None:
        """Remember the files as verified; in a folder that cannot be written, for this process alone."""
        try:
            write_json(self._path, self._value)
        except MoelabError:
            _verified[self._path] = self._value
