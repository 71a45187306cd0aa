"""Claims: who holds a lease, as it stands in a file; and what of processes can be seen from here."""

import json
import os
import secrets
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from moelab.errors import InputError, MoelabError
from moelab.files import parse_json

RELEASED = "released"
_WIDTH = 20
_WHO = {
    "holder": (str,), "host": (str,), "pid": (int,), "nonce": (str,), "machine": (str,), "started": (str,),
    "beat": (int, float),
}  # fmt: skip
"""What a claim's file holds beside its counter, and of which types."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What stands in the newest file of a lease. `counter` moves while the holder lives."""

    place: Path
    generation: int
    counter: str = ""
    holder: str = ""
    host: str = ""
    pid: int = 0
    nonce: str = ""
    machine: str = ""
    started: str = ""
    beat: float = 0.0

    @classmethod
    def mine(cls, place: Path, generation: int, holder: str, beat: float) -> "Claim":
        """The claim that this process makes."""
        pid = os.getpid()
        return cls(
            place=place,
            generation=generation,
            counter="0",
            holder=holder,
            host=socket.gethostname(),
            pid=pid,
            nonce=secrets.token_hex(8),
            machine=this_machine(),
            started=process_started(pid),
            beat=beat,
        )

    @property
    def path(self) -> Path:
        return claim_path(self.place, self.generation)

    @property
    def free(self) -> bool:
        """Whether the holder gave it back, or is surely gone."""
        return self.counter == RELEASED or self._seen_alive() is False

    @property
    def surely_alive(self) -> bool:
        """Whether the holder is a process that is seen to be there."""
        return self.counter != RELEASED and self._seen_alive() is True

    def _seen_alive(self) -> bool | None:
        """None where the process cannot be seen from here."""
        if not self.machine or self.machine != this_machine():
            return None
        return process_started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else "another process"


def find(place: Path) -> Claim | None:
    """The newest claim on `place`, given back or not; None where there is none."""
    numbers = generations(place)
    return _read(place, max(numbers)) if numbers else None


def process_started(pid: int) -> str:
    """When a process of this machine started, in the kernel's own ticks; empty where it is not there or a zombie."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] in "ZX" else words[19]


@cache
def this_machine() -> str:
    """What processes have in common that see one process table: host, boot and process namespace; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}:{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def claim_path(place: Path, number: int) -> Path:
    return place.with_name(f"{place.name}.{number:06d}")


def generations(place: Path) -> list[int]:
    """The numbers of the lease's files."""
    prefix = f"{place.name}."
    try:
        with os.scandir(place.parent) as entries:
            names = [entry.name.removeprefix(prefix) for entry in entries if entry.name.startswith(prefix)]
    except OSError:
        return []
    return [int(name) for name in names if name.isdigit()]


def content(claim: Claim) -> bytes:
    """What stands in a claim's file: the counter, and who moves it."""
    who = {name: getattr(claim, name) for name in _WHO}
    return f"{claim.counter:<{_WIDTH}}\n{json.dumps(who)}\n".encode()


def _read(place: Path, number: int) -> Claim:
    """A claim as it stands in its file; one that is half written is somebody's, nobody knows whose."""
    try:
        counter, _, rest = claim_path(place, number).read_text(encoding="utf-8").partition("\n")
        who = parse_json(rest, place.name)
        known = {name: who[name] for name, kind in _WHO.items() if type(who.get(name)) in kind}
        return Claim(place=place, generation=number, counter=counter.strip(), **known)
    except (OSError, ValueError, AttributeError, InputError):
        return Claim(place=place, generation=number)


def create(path: Path, content: bytes) -> bool:
    """Make a file that must not be there yet; False where it is."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    try:
        os.write(handle, content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise MoelabError(f"cannot write {path}: {error.strerror}") from error
    finally:
        os.close(handle)
    return True


def move_counter(claim: Claim, count: int) -> None:
    """Change the counter in place: that needs no room on a full disk, and never brings a removed file back.

    Raises FileNotFoundError where the file is gone or is another's.
    """
    handle = os.open(claim.path, os.O_RDWR)
    try:
        if claim.nonce.encode() not in os.read(handle, 4096):
            raise FileNotFoundError(claim.path)
        os.pwrite(handle, f"{count:<{_WIDTH}}".encode(), 0)
    finally:
        os.close(handle)
