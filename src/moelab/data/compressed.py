"""Files opened as their names demand: plain, gzip or Zstandard, read in bounded memory."""

import gzip
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from moelab.errors import InputError

UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading raises where a file is missing, damaged or cut short."""
_BUFFER = 1 << 20


def reason_of(error: Exception) -> str:
    """What the system reports of a file that cannot be read, in short."""
    return str(getattr(error, "strerror", None) or error)


def open_file(path: Path) -> BinaryIO:
    """The content of a file, decompressed as its name demands."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if name.endswith(".zst"):
        return io.BufferedReader(_Zstandard(path), _BUFFER)
    return open(path, "rb")


class _Zstandard(io.RawIOBase):
    """A Zstandard file of any number of frames. The library's own reader ends quietly where a file is cut short."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where the package zstandard is missing."""
        try:
            import zstandard
        except ImportError:
            raise InputError(f"source: {path} needs the package zstandard (pip install 'moelab[train]')") from None
        self._library = zstandard
        self._file = open(path, "rb")  # noqa: SIM115
        self._frame: Any = None
        self._waiting = self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Raises EOFError where the file ends inside a frame, OSError where it is damaged."""
        while not self._ready:
            part = self._waiting or self._file.read(4096)  # four kilobytes unpack to 128 MB at most
            if not part:
                if self._frame is not None:
                    raise EOFError("it ends inside a compressed frame")
                return 0
            self._frame = self._frame or self._library.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
            try:
                self._ready = self._frame.decompress(part)
            except self._library.ZstdError as error:
                raise OSError(str(error)) from None
            self._waiting = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
