"""A lease has one holder whatever happens: races, deaths, silence, clocks that jump, processes that stand still."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moelab import claim as claims
from moelab.claim import find
from moelab.errors import MoelabError
from moelab.lease import Busy, Lease, LeaseLost, Terms, Watch, acquire, hold, revoke

QUICK = Terms(patience=0.8)
HOLD = """
import sys, time
from pathlib import Path
from moelab.lease import Terms, acquire
acquire(Path(sys.argv[1]), Terms(holder="other", patience=0.8))
print("held", flush=True)
time.sleep(60)
"""

linux = pytest.mark.skipif(not claims.this_machine(), reason="other processes are seen through /proc")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / ".lease"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders seem to be on other machines: nothing is known of them but the counter."""
    monkeypatch.setattr(claims, "this_machine", lambda: "")


@pytest.fixture
def other_process(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease and does nothing else."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def files(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir())


def test_taken_released_taken(place: Path) -> None:
    first = Lease.take(place, Terms(holder="a"))
    with pytest.raises(Busy, match=rf"process {os.getpid()} on .* holds"):
        Lease.take(place)
    claim = find(place)
    assert claim is not None
    assert (claim.holder, claim.pid, claim.surely_alive) == ("a", os.getpid(), bool(claims.this_machine()))
    first.release()
    second = Lease.take(place, Terms(holder="b"))
    assert len(files(place)) == 1
    second.release()
    assert files(place) == []


def test_an_error_gives_it_back(place: Path) -> None:
    with pytest.raises(ValueError, match="oh"), hold(place):
        raise ValueError("oh")
    assert files(place) == []


def test_of_many_at_once_one_wins(place: Path) -> None:
    def attempt(_: int) -> Lease | None:
        try:
            return Lease.take(place)
        except Busy:
            return None

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            won = [found for found in pool.map(attempt, range(8)) if found]
        assert len(won) == 1
        won[0].release()


@linux
def test_a_killed_holder_of_this_machine_is_seen_at_once(place: Path, other_process: subprocess.Popen[str]) -> None:
    with pytest.raises(Busy):
        acquire(place)
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    started = time.monotonic()
    acquire(place).release()
    assert time.monotonic() - started < 1


@pytest.mark.usefixtures("elsewhere")
def test_a_still_holder_elsewhere_expires_and_a_living_one_never(
    place: Path, other_process: subprocess.Popen[str]
) -> None:
    watch = Watch(QUICK.patience)
    until = time.monotonic() + 2 * QUICK.patience
    while time.monotonic() < until:
        assert watch.dead(place) is None
        time.sleep(0.05)
    assert watch.moved(place)
    with pytest.raises(Busy):
        acquire(place, QUICK)
    other_process.kill()
    other_process.wait()
    started = time.monotonic()
    acquire(place, QUICK).release()
    assert QUICK.patience * 0.9 < time.monotonic() - started < 4 * QUICK.patience


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_clocks_do_not_matter(place: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """The wall clock and the file's times jump by thirty years while one holds and another watches."""
    held = Lease.take(place, QUICK)
    watch = Watch(QUICK.patience)
    assert watch.dead(place) is None
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)
    until = time.monotonic() + 2 * QUICK.patience
    while time.monotonic() < until:
        os.utime(held.claim.path, (1e9 + jump, 1e9 + jump))
        assert watch.dead(place) is None
        time.sleep(0.05)
    held.check()
    held.release()


@pytest.mark.usefixtures("elsewhere")
def test_an_observer_that_slept_kills_nobody(place: Path) -> None:
    """Only time in which it looked counts: a watch that was stopped for a day starts from where it was."""
    held = Lease.take(place, Terms(patience=120))
    days = iter((0.0, 1e5, 2e5, 3e5, 4e5))
    watch = Watch(120, clock=lambda: next(days))
    for _ in range(5):
        assert watch.dead(place) is None
    held.release()


@linux
def test_a_stopped_process_loses_its_lease_and_knows(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Lease.take(place, QUICK)
    monkeypatch.setattr(held, "beat", lambda: None)  # as if this process stood still
    monkeypatch.setattr(claims, "this_machine", lambda: "")
    other = acquire(place, QUICK)
    monkeypatch.undo()
    time.sleep(0.1)
    with pytest.raises(LeaseLost, match="taken over"):
        held.check()
    held.release()
    other.check()
    other.release()
    assert files(place) == []


@pytest.mark.usefixtures("elsewhere")
def test_two_who_saw_the_same_death_do_not_both_take_it(place: Path) -> None:
    """The slower one's judgement is about an older claim; it cannot hit the new one."""
    Lease.take(place, QUICK)._stop.set()
    stale = find(place)
    assert stale is not None
    revoke(stale)
    winner = Lease.take(place, QUICK)
    revoke(stale)
    winner.check()
    with pytest.raises(Busy):
        Lease.take(place, QUICK)
    winner.release()


def test_a_sleeper_does_not_take_a_later_claim_of_its_number_for_its_own(place: Path) -> None:
    sleeper = Lease.take(place, QUICK)
    sleeper.claim.path.unlink()
    other = Lease.take(place, QUICK)
    assert other.claim.path == sleeper.claim.path
    sleeper.beat()
    with pytest.raises(LeaseLost):
        sleeper.check()
    sleeper.release()
    other.check()
    other.release()


def test_waiting_in_line(place: Path) -> None:
    held = Lease.take(place, QUICK)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(acquire, place, Terms(patience=0.8, queue=True))
        time.sleep(0.3)
        assert not waiting.done()
        held.release()
        waiting.result(timeout=5).release()
    assert files(place) == []


def test_a_half_written_claim_is_somebodys(place: Path) -> None:
    place.with_name(".lease.000001").write_bytes(b"")
    with pytest.raises(Busy, match="another process"):
        Lease.take(place)
    acquire(place, QUICK).release()


@linux
def test_a_reused_process_id_is_not_the_holder(place: Path) -> None:
    held = Lease.take(place)
    text = held.claim.path.read_text()
    held.release()
    held.claim.path.write_text(text.replace(f'"started": "{held.claim.started}"', '"started": "1"'))
    acquire(place, Terms(judge=False)).release()
    assert files(place) == []


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MoelabError, match=r"cannot write .*file/\.lease\.\d+: Not a directory"):
        Lease.take(tmp_path / "file" / ".lease")
