"""Files a command is to write, checked before its work: the ending, and that they can be written at all."""

import os
from collections.abc import Sequence
from pathlib import Path

FIGURES = (".svg", ".png", ".pdf", ".html", ".json")
"""Endings that `report.save` writes."""


def check_output(path: str | None, option: str, endings: Sequence[str] = ()) -> None:
    """Raises InputError for a name without one of `endings`, a folder, or a place where nothing can be written."""
    from moelab.errors import InputError

    if path is None:
        return
    target = Path(path)
    if endings and target.suffix.lower() not in endings:
        raise InputError(f"{option}: expected a name that ends in {', '.join(endings)}, got {path!r}")
    if not path or target.is_dir():
        raise InputError(f"{option}: expected a file, {path!r} is a folder")
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not above.is_dir():
        raise InputError(f"{option}: cannot write {path}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{option}: cannot write {path}: no permission to write in {above}")
