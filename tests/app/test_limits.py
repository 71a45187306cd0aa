"""What a visitor's file may cost: the header of a wide table is counted, reading ends at its limits."""

import asyncio
import resource
from pathlib import Path

import pytest

from moelab.app import fitting, limits
from moelab.app.fitting import MOST_COLUMNS, examine
from moelab.app.limits import limited
from moelab.app.workers import Workers
from moelab.errors import InputError, MoelabError
from moelab.runs.text_tables import header_width


def loop() -> None:
    while True:
        pass


def allocate(count: int) -> int:
    return len(bytearray(count))


def nothing() -> None:
    pass


@pytest.mark.parametrize(
    ("head", "width"),
    [
        ("a,b,c", 3),
        ("a;b;c;d", 4),
        ('"a,b",c', 2),
        ("# made by hand\n\na,b", 2),
        ("sep=;\na;b;c", 3),
        ("# a b c\n1 2 3", 1),
        (",".join(f"c{k}" for k in range(50_000)), 50_000),
        ("", 2),
        ("a,b\rc,d", 3),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_header_is_counted_alone(tmp_path: Path, head: str, width: int, encoding: str) -> None:
    path = tmp_path / "runs.csv"
    path.write_bytes(f"{head}\n1,2".encode(encoding))
    assert header_width(path) == width


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_wide_table_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the table was read")

    monkeypatch.setattr(fitting, "load_table", fail)
    separator = "\t" if ending == ".tsv" else ","
    path = tmp_path / f"wide{ending}"
    path.write_text(separator.join(f"c{k}" for k in range(MOST_COLUMNS + 1)) + "\n")
    with pytest.raises(InputError, match=r"^w\.csv: at most 20,000 rows and 200 columns here, got 201 columns"):
        examine(str(path), "w.csv")


def test_limits_end_with_the_work() -> None:
    before = [resource.getrlimit(kind) for kind in (resource.RLIMIT_CPU, resource.RLIMIT_DATA)]
    assert limited(10, allocate, 1000) == 1000
    with pytest.raises(MoelabError, match="more than 2 GB of memory here"):
        limited(10, allocate, limits.MOST_MEMORY + 10**9)
    assert [resource.getrlimit(kind) for kind in (resource.RLIMIT_CPU, resource.RLIMIT_DATA)] == before


@pytest.mark.slow
def test_work_that_takes_too_long_ends_its_process_and_the_next_is_answered() -> None:
    async def ask() -> int:
        workers = Workers(1, nothing)
        try:
            with pytest.raises(MoelabError, match="ended the process"):
                await workers.ask("long", limited, 1, loop)
            return int(await workers.ask("short", limited, 1, allocate, 7))
        finally:
            workers.stop()

    assert asyncio.run(ask()) == 7
