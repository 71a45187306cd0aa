"""Files that visitors bring: data under their SHA-256, seen by their own visitor alone, gone with the server."""

import hashlib
import secrets
import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path

from moelab.errors import InputError
from moelab.files import write_bytes

MOST_BYTES = 20_000_000
PER_VISITOR, MOST_FILES = 8, 64
VISITOR_BYTES = 16


class Uploads:
    """Uploaded files by (visitor, SHA-256), the oldest dropped beyond 8 of one visitor and 64 of all."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="moelab-app-"))
        self.files: OrderedDict[tuple[str, str], Path] = OrderedDict()

    def keep(self, visitor: str, content: bytes, suffix: str) -> str:
        """Keep a file of this visitor, named by chance with `suffix`; returns its SHA-256."""
        digest = hashlib.sha256(content).hexdigest()
        if (visitor, digest) not in self.files:
            path = self.folder / (secrets.token_hex(VISITOR_BYTES) + suffix)
            write_bytes(path, content)
            self.files[visitor, digest] = path
        self.files.move_to_end((visitor, digest))
        own = [key for key in self.files if key[0] == visitor]
        for key in [*own[:-PER_VISITOR], *list(self.files)[:-MOST_FILES]]:
            if key in self.files:
                self.files.pop(key).unlink(missing_ok=True)
        return digest

    def path(self, visitor: str, digest: str) -> str:
        """Where the file lies. Raises InputError where this visitor has brought no such file."""
        path = self.files.get((visitor, digest))
        if path is None:
            raise InputError("law: this address needs a fit file that is not here; choose the file again")
        return str(path)

    def drop(self, visitor: str, digest: str) -> None:
        """Forget a file that turned out to be of no use."""
        self.files.pop((visitor, digest)).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete every file."""
        shutil.rmtree(self.folder, ignore_errors=True)


def new_visitor() -> str:
    """A name that nobody can guess."""
    return secrets.token_hex(VISITOR_BYTES)
