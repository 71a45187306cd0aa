"""The fit page over HTTP: a table is read as data, mapped, checked and fitted; nothing leaves its visitor."""

import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import moelab
from moelab.app.fitting import REPLICATES, STARTS, assignments, examine, fit_page
from moelab.errors import InputError
from moelab.fitting.compare import compare_laws
from moelab.runs.table import load_table
from tests.app.conftest import Client


@pytest.fixture(scope="module")
def table() -> bytes:
    """Twelve runs of a known law, with columns as people name them."""
    law = moelab.get_law("besiroglu2024")
    lines = ["Total Params (M),tokens_b,val_loss,=note"]
    for size in (10, 20, 40, 80):
        for tokens in (0.1, 0.4, 2.0):
            loss = float(law.loss(None, {"params_total": size * 1e6, "tokens": tokens * 1e9}))
            lines.append(f"{size},{tokens},{loss:.6f},=cmd|'/c calc'!A0")
    return "\n".join(lines).encode()


def given(client: Client, table: bytes, name: str = "runs.csv") -> Any:
    client.get("/fit")
    return client.post(f"/fit/table?name={name}", table).json


def test_columns_and_units_are_suggested(client: Client, table: bytes) -> None:
    reply = given(client, table)
    assert reply["n_rows"] == 12
    assert reply["columns"] == ["Total Params (M)", "tokens_b", "val_loss", "=note"]
    assert reply["mapping"] == {
        "params_total": ["Total Params (M)", "millions"], "tokens": ["tokens_b", "billions"], "loss": ["val_loss", "1"]
    }  # fmt: skip
    assert reply["rows"][0][:2] == ["10", "0.1"]


def test_a_mapping_is_let() -> None:
    mapping = {"tokens": ("Tokens (B)", "billions"), "loss": ("loss", "1"), "params_total": ('a "b"', "1")}
    lets = assignments(mapping, ["Tokens (B)", "loss", 'a "b"'])
    assert lets == ['tokens = 1000000000 * "Tokens (B)"', 'params_total = "a ""b"""']
    for wrong in ({"nothing": ("loss", "1")}, {"loss": ("other", "1")}, {"loss": ("loss", "dozens")}):
        with pytest.raises(InputError, match=r"no such variable|no column 'other'|expected a unit"):
            assignments(wrong, ["loss"])


def test_laws_are_fitted_to_the_mapped_columns(client: Client, table: bytes, tmp_path: Any) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(table)
    mapping = {name: tuple(pair) for name, pair in examine(str(path), "runs.csv")["mapping"].items()}
    shares: list[float] = []
    part = fit_page(str(path), "runs.csv", mapping, ["besiroglu2024"], shares.append)
    assert shares[-1] == 1
    for words in ("Laws side by side", "Predicted against measured", "Errors by variable", "Coefficients"):
        assert words in part["html"]
    assert len(part["specs"]) >= 2
    assert part["flops"] == "1e19"
    assert re.fullmatch(
        r"1 law is fitted; it predicts the \d runs held out, .* within 0\.\d\d% on average\.", part["answer"][0]
    )
    assert len(part["answer"]) <= 3
    fitted = json.loads(part["fits"])["fits"]["besiroglu2024"]["coefficients"]
    assert fitted["alpha"]["value"] == pytest.approx(0.3478, abs=0.01)
    assert f"moelab fit --bootstrap {REPLICATES} --starts {STARTS}" in part["html"]
    same = load_table(path, assignments(mapping, load_table(path).columns))
    asked = compare_laws(same, ["besiroglu2024"], bootstrap=REPLICATES, starts=STARTS).fits["besiroglu2024"]
    for name, value, low, high, _ in asked.coefficient_rows():
        assert [fitted[name][end] for end in ("value", "low", "high")] == [value, low, high]


def test_the_checks_are_those_of_the_command(client: Client, table: bytes) -> None:
    reply = given(client, table)
    asked = {"table": reply["sha256"], "name": "runs.csv", "mapping": {**reply["mapping"], "tokens": ["tokens_b", "1"]}}
    notes = client.post("/fit/check", json.dumps(asked).encode()).json["notes"]
    assert any("tokens" in note and "billions" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("runs.parquet", b"x", "expected a table (.csv"),
        ("../../x.py", b"x", "expected a table"),
        ("runs.csv", b"", "runs.csv"),
        ("runs.json", b"[" * 100_000, "runs.json"),
        ("runs.csv", b"a,b\n1,2,3\n", "runs.csv"),
    ],
)
def test_no_table_is_one_line(client: Client, name: str, content: bytes, message: str) -> None:
    reply = given(client, content, name)
    assert message in reply["error"]
    assert "\n" not in reply["error"]
    assert str(client.app.state.uploads.folder) not in reply["error"]


WIDE = {f"k{n}": 1 for n in range(20_000)}


@pytest.mark.parametrize(
    ("name", "content", "got"),
    [
        ("keys.json", json.dumps(WIDE), "1 rows and 20,000 columns"),
        ("rows.json", json.dumps([{"loss": 2}, WIDE]), "2 rows and 20,001 columns"),
        ("inner.json", json.dumps([{"config": WIDE}]), "1 rows and 20,000 columns"),
        ("columns.json", json.dumps({key: [1, 2] for key in WIDE}), "2 rows and 20,000 columns"),
        ("each.jsonl", "".join(f'{{"k{n}": 1}}\n' for n in range(2_000)), "2,000 rows and 2,000 columns"),
        ("long.jsonl", '{"loss": 2}\n' * 20_001, "20,001 rows and 1 columns"),
        ("wide.csv", ",".join(WIDE), "20,000 columns"),
    ],
)
def test_wide_and_long_tables_are_refused_before_they_are_made(
    client: Client, monkeypatch: pytest.MonkeyPatch, name: str, content: str, got: str
) -> None:
    monkeypatch.setattr("moelab.app.fitting.load_table", lambda *_: pytest.fail("the table was made"))
    reply = given(client, content.encode(), name)
    assert (
        reply["error"] == f"{name}: at most 20,000 rows and 200 columns here, got {got}; moelab fit has no such limit"
    )


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"table": 1}', b"[" * 100_000, b'{"table":"x","name":"x","mapping":{"loss":["a"]}}']
)
def test_wrong_requests_are_refused(client: Client, body: bytes) -> None:
    client.get("/fit")
    assert client.post("/fit/check", body).status == 422


def test_unknown_laws_are_refused(client: Client, table: bytes) -> None:
    reply = given(client, table)
    asked = {"table": reply["sha256"], "name": "x.csv", "mapping": reply["mapping"], "laws": ["/etc/passwd"]}
    assert "no such law '/etc/passwd'" in client.post("/fit/jobs", json.dumps(asked).encode()).json["error"]


def test_another_visitors_table_and_fit_are_out_of_reach(visitors: Callable[[], Client], table: bytes) -> None:
    one, two = visitors(), visitors()
    reply = given(one, table)
    two.get("/fit")
    asked = json.dumps({"table": reply["sha256"], "name": "runs.csv", "mapping": reply["mapping"]}).encode()
    assert one.post("/fit/check", asked).status == 200
    assert two.post("/fit/check", asked).status == 422
    assert two.get(f"/fit/file/{reply['sha256']}").status == 422
    assert one.get(f"/fit/file/{reply['sha256']}").body == table


def test_a_finished_fit_is_an_upload_of_its_visitor(client: Client) -> None:
    client.get("/fit")
    done = SimpleNamespace(running=False, error="", share=1.0, result={"html": "<p>", "specs": [], "fits": b"{}"})
    client.app.state.jobs = SimpleNamespace(job=lambda visitor, name: done)
    for _ in range(2):
        reply = client.get("/fit/jobs/abc").json
        assert reply["html"] == "<p>"
        assert client.get(f"/fit/file/{reply['sha256']}").body == b"{}"
