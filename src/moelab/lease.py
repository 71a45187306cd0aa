"""Leases: at most one living process works on a thing, on any file system, whatever the clocks show.

A lease on PLACE is the file `PLACE.NUMBER` with the highest number. The holder created it exclusively (the one atomic
step that every network file system offers; advisory locks are not) and moves a counter in it while it lives. Nobody
compares clocks: an observer watches, over its own monotonic time, whether the counter moves. A holder whose counter
stands still is dead, and the next number goes to whoever creates it first; the old holder, if it was only asleep, sees
that its file is gone or a higher one is there. Processes that share a process table need not watch: they look whether
the holder is still there.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from moelab.claim import RELEASED, Claim, claim_path, content, create, find, generations, move_counter
from moelab.errors import MoelabError

PATIENCE_SECONDS = 120.0
"""How long a counter may stand still; above the minute for which network file systems may show an old state."""

_BEATS = 40
"""Times a holder moves its counter within that patience."""


class Busy(MoelabError):
    """Another process holds the lease, or was faster."""


class LeaseLost(MoelabError):
    """The lease was taken over, because this process stood still for too long."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a lease is asked for.

    `holder` names who works (a worker's id). With `judge`, a claim that may be dead is watched until that is known;
    without, it is somebody else's. `queue` waits for as long as a living holder needs.
    """

    holder: str = ""
    patience: float = PATIENCE_SECONDS
    judge: bool = True
    queue: bool = False


DEFAULT = Terms()


class Watch:
    """Finds the dead among the holders, by looking again and again.

    Only time in which this process looked counts, so a machine that slept, or a clock that jumped, kills nobody.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience, self.clock = patience, clock
        self._seen: dict[Path, _Seen] = {}

    def dead(self, place: Path) -> Claim | None:
        """The claim on `place` if its holder is dead as far as was seen until now. Call it every second or so."""
        claim = find(place)
        if claim is None or claim.counter == RELEASED:
            self._seen.pop(place, None)
            return None
        if claim.surely_alive or claim.free:
            return claim if claim.free else None
        now, seen = self.clock(), self._seen.get(place)
        if seen is None or seen.mark != (claim.generation, claim.counter):
            moved = 0 if seen is None else seen.moved + 1
            self._seen[place] = _Seen(mark=(claim.generation, claim.counter), last=now, moved=moved)
            return None
        seen.watched += min(now - seen.last, self.patience / 8)
        seen.last = now
        return claim if seen.watched >= max(self.patience, 8 * claim.beat) else None

    def moved(self, place: Path) -> bool:
        """Whether the counter on `place` was seen to move."""
        return place in self._seen and self._seen[place].moved > 0


@dataclass(kw_only=True)
class _Seen:
    mark: tuple[int, str]
    last: float
    watched: float = 0.0
    moved: int = 0


class Lease:
    """A lease this process holds; a thread of its own moves the counter until `release`."""

    def __init__(self, claim: Claim, patience: float) -> None:
        self.claim, self.patience = claim, patience
        self.lost = False
        self._count, self._last = 0, time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease {claim.place.name}", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, place: Path, terms: Terms = DEFAULT) -> "Lease":
        """Take a free lease. Raises Busy where it is not (or may not be) free, MoelabError where it cannot be kept."""
        before = find(place)
        if before is not None and not before.free:
            raise Busy(f"{before} holds {place}")
        number = before.generation + 1 if before else 1
        claim = Claim.mine(place, number, terms.holder, terms.patience / _BEATS)
        if not create(claim.path, content(claim)):
            raise Busy(f"another process was faster to take {place}")
        newest = find(place)
        if newest is not None and newest.generation > number:
            raise Busy(f"{newest} holds {place}")
        for older in generations(place):
            if older < number:
                claim_path(place, older).unlink(missing_ok=True)
        return cls(claim, terms.patience)

    def check(self) -> None:
        """Raises LeaseLost if another process may have taken over. Cheap: ask before whatever the lease protects."""
        if time.monotonic() - self._last > 2 * self.claim.beat:
            self.beat()
        if self.lost:
            raise LeaseLost(f"{self.claim.place} was taken over while this process stood still")

    def release(self) -> None:
        """Give it back; no trace stays."""
        self._stop.set()
        self._thread.join()
        with suppress(OSError):
            if self.claim.nonce in self.claim.path.read_text(encoding="utf-8"):
                self.claim.path.unlink()

    def _run(self) -> None:
        while not self.lost and not self._stop.wait(self.claim.beat):
            self.beat()

    def beat(self) -> None:
        self._count += 1
        try:
            move_counter(self.claim, self._count)
            self._last = time.monotonic()
        except FileNotFoundError:
            self.lost = True
        except OSError:
            self.lost = time.monotonic() - self._last > self.patience / 2
        if max(generations(self.claim.place), default=0) > self.claim.generation:
            self.lost = True


def acquire(place: Path, terms: Terms = DEFAULT) -> Lease:
    """Take a lease on `terms`. Raises Busy where another process holds it."""
    watch = Watch(terms.patience)
    while True:
        try:
            return Lease.take(place, terms)
        except Busy as busy:
            claim = find(place)
            if claim is None or claim.free:
                continue
            dead = watch.dead(place)
            if dead is not None:
                revoke(dead)
            elif not terms.queue and (not terms.judge or claim.surely_alive or watch.moved(place)):
                raise Busy(str(busy)) from None
        time.sleep(min(0.2, terms.patience / _BEATS))


@contextmanager
def hold(place: Path, terms: Terms = DEFAULT) -> Iterator[Lease]:
    """A lease for a while."""
    lease = acquire(place, terms)
    try:
        yield lease
    finally:
        lease.release()


def revoke(claim: Claim) -> None:
    """End a dead holder's claim, so that anybody may take the lease; if it lives after all, it loses it."""
    ended = Claim(place=claim.place, generation=claim.generation + 1, counter=RELEASED)
    create(ended.path, content(ended))
