"""Where an export goes: built beside its place, renamed into it whole, replacing nothing but an earlier export."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moelab.errors import InputError, MoelabError
from moelab.files import drop_parts, make_folder, part_folder, put_folder, read_json
from moelab.lease import Terms, acquire

NOTE = "moelab_export.json"
"""In every exported folder: what it is, and which files belong to it."""


def check_folder(out: Path, force: bool) -> None:
    """Raises InputError where `out` may not become an exported folder: it is there, and not ours or not `force`d."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise InputError(f"--out: {out} is not a folder")
    present = {path.name for path in out.iterdir()}
    if not present:
        return
    if NOTE not in present:
        raise InputError(f"--out: {out} holds other files, not an earlier export; choose another folder")
    if not force:
        raise InputError(f"--out: {out} holds an earlier export; --force replaces it")
    note = read_json(out / NOTE, "--out")
    listed = note.get("files") if isinstance(note, dict) else None
    foreign = sorted(present - {NOTE, *(listed if isinstance(listed, list) else ())})
    if foreign:
        raise InputError(f"--out: {out} holds files that no export wrote ({foreign[0]}); move them, then --force")


@contextmanager
def new_folder(out: Path, force: bool) -> Iterator[Path]:
    """An empty folder to fill; when the block ends it is flushed and becomes `out`, when it fails nothing remains.

    Others who export to the same place wait. What a killed export left behind is removed. Raises MoelabError where the
    disk is full or refuses.
    """
    make_folder(out.parent, "--out")
    try:
        lease = acquire(out.parent / f".{out.name}.lease", Terms(queue=True))
    except InputError as error:
        raise InputError(f"--out: {error}") from None
    try:
        drop_parts(out)
        check_folder(out, force)
        try:
            with part_folder(out) as place:
                yield place
                put_folder(place, out)
        except OSError as error:
            raise MoelabError(f"--out: cannot write {out}: {error.strerror or error}") from error
    finally:
        lease.release()
