"""The planner page over HTTP: the same answer as the command, one line for bad input, harmless to hostile input."""

import asyncio
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from moelab.app.guard import host_name
from moelab.app.uploads import MOST_BYTES
from moelab.planning.request import plan_request
from tests.app.conftest import HOST, Client

SMALL = "flops=1e18&near=olmoe-1b-7b&law=ludziejewski2025"


def test_the_page_holds_its_answer_without_scripts(client: Client) -> None:
    reply = client.get(f"/?{SMALL}")
    assert reply.status == 200
    assert "Train a MoE model of" in reply.text
    assert 'value="1e18"' in reply.text
    assert "moelab plan --flops 1e18 --near olmoe-1b-7b --law ludziejewski2025" in reply.text
    assert "<script>" not in reply.text


def test_a_part_is_what_the_command_answers(client: Client) -> None:
    first, rest = (client.get(f"/part/{name}?{SMALL}").json for name in ("answer", "evidence"))
    plan = plan_request({"flops": "1e18", "near": "olmoe-1b-7b", "law": ["ludziejewski2025"]}).plan()
    assert f"<h1>{plan.sentence.split(' on ')[0]}" in first["lead"]
    assert plan.best.label in first["lead"]
    assert f"{plan.best.config.n_layers}x{plan.best.config.d_model}" in first["html"]
    assert len(rest["specs"]) >= 2
    assert first["error"] == rest["error"] == ""


def test_the_sentences_are_complete_with_the_evidence(client: Client) -> None:
    """The answer comes without the limits that bind, which takes a search each; nothing else in it changes."""
    first, rest = (
        client.get(f"/part/{name}?flops=1.7e18&near=olmoe-1b-7b&law=ludziejewski2025").json
        for name in ("answer", "evidence")
    )
    assert "Binding" not in first["lead"]
    assert rest["lead"].replace("<p>Binding limit: compute.</p>", "").split() == first["lead"].split()
    assert "<p>Binding limit: compute.</p>" in rest["lead"]


def test_what_changes_the_answer_is_a_part_of_its_own(client: Client) -> None:
    for name in ("answer", "evidence"):
        assert "What changes the answer" not in client.get(f"/part/{name}?{SMALL}").json["html"]
    assert "twice the compute" in client.get(f"/part/changes?{SMALL}").json["html"]


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("flops=abc", "flops", "“Training FLOPs”"),
        ("flops=1e21&tpot=50ms", "tpot", "needs “Device that serves”"),
        ("flops=1e18&near=olmoe-1b-7b&max-params=1M", "max-params", "“Parameters”"),
        ("flops=1e21&days=3", "flops", "contradicts"),
        ("flops=1e21&hardware=x.yaml", "hardware", "expected one of"),
    ],
)
def test_bad_input_is_one_line_at_its_field(client: Client, query: str, field: str, message: str) -> None:
    reply = client.get(f"/part/answer?{query}")
    assert reply.status == 422
    assert reply.json["html"] == ""
    assert message in reply.json["error"]
    assert "\n" not in reply.json["error"]
    assert reply.json["field"] == field
    assert client.get(f"/?{query}").status == 422


def test_files_of_the_plan(client: Client) -> None:
    reply = client.get(f"/download/plan.json?{SMALL}")
    assert json.loads(reply.body)["candidates"][0]["params_total"] > 0
    assert reply.headers["content-disposition"] == 'attachment; filename="plan.json"'
    assert b"model:" in client.get(f"/download/run.yaml?{SMALL}").body
    refused = client.get(f"/download/config.json?{SMALL}")
    assert refused.status == 422
    assert refused.text.startswith("config.json: ")
    assert client.get(f"/download/%2e%2e%2fetc?{SMALL}").status == 404
    assert client.get("/download/passwd").status == 404


def test_hostile_addresses_stay_text(client: Client) -> None:
    for query in ("flops=%3Cscript%3Ealert(1)%3C/script%3E", "%3Cimg%20src=x%3E=1", "law=..%2F..%2Fetc%2Fpasswd"):
        reply = client.get(f"/?{query}")
        assert reply.status == (200 if query.startswith("%3Cimg") else 422)  # what is no field is left out
        assert "<script>alert" not in reply.text
        assert "<img src=x>" not in reply.text
    assert client.get("/?flops=" + "9" * 5000).status == 414
    assert client.get("/static/../server.py").status == 404


@pytest.mark.parametrize(
    "value",
    ["NaN", "inf", "1e999", "-1e21", "0", "1e308", "%F0%9F%92%A5", "%ff%fe", "1e21%00", "1e21%0d%0aSet-Cookie:x=1"],
)
def test_numbers_out_of_range_are_one_line(client: Client, value: str) -> None:
    reply = client.get(f"/part/answer?near=olmoe-1b-7b&flops={value}")
    assert reply.status == 422
    assert reply.json["field"] == "flops"
    assert "\n" not in reply.json["error"]
    assert "x=1" not in reply.headers.get("set-cookie", "")


def test_ten_thousand_parameters_are_too_many(client: Client) -> None:
    assert client.get("/?" + "&".join(f"flops={n}" for n in range(10_000))).status == 414
    assert client.get("/part/answer?" + "&".join(f"f{n}=1" for n in range(400))).status == 422


def test_every_reply_has_the_policy(client: Client) -> None:
    for address in (f"/?{SMALL}", "/static/app.js", "/part/answer?flops=x", "/nothing", "/fit"):
        headers = client.get(address).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "script-src 'self' 'unsafe-eval';" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_other_hosts_and_origins_are_refused(client: Client) -> None:
    assert client.get(f"/?{SMALL}", host="evil.example").status == 400
    assert client.get("/static/app.css", host="[::1]:8000").status == 200
    assert client.post("/upload", b"{}", origin="http://evil.example").status == 403
    assert client.send("POST", "/upload", b"{}", {}).status == 403


def test_the_cookie_works_in_frames_where_they_are_allowed(client: Client) -> None:
    assert "samesite=strict" in client.get("/fit").headers["set-cookie"].lower()
    framed = Client(client.app)
    client.app.state.framed = True
    cookie = framed.get("/fit").headers["set-cookie"].lower()
    assert "samesite=none" in cookie
    assert "secure" in cookie


@pytest.mark.parametrize(
    ("host", "name"),
    [("localhost:80", "localhost"), ("LOCALHOST", "localhost"), ("[::1]:8000", "[::1]"), ("[::1]", "[::1]")],
)
def test_host_names(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small fit file."""
    import moelab
    from moelab.fitting import save_fits

    runs = {"params_total": [1e7, 2e7, 4e7, 8e7] * 3, "tokens": [1e8] * 4 + [4e8] * 4 + [2e9] * 4}
    law = moelab.get_law("besiroglu2024")
    pairs = zip(runs["params_total"], runs["tokens"], strict=True)
    runs["loss"] = [float(law.loss(None, {"params_total": n, "tokens": d})) for n, d in pairs]
    path = Path(tmp_path_factory.mktemp("fit")) / "fit.json"
    save_fits({"besiroglu2024": moelab.fit(runs, "besiroglu2024", bootstrap=10, starts=16)}, path)
    return path.read_bytes()


def test_an_uploaded_fit_is_used_by_its_visitor_alone(visitors: Callable[[], Client], fit: bytes) -> None:
    one, two = visitors(), visitors()
    assert one.post("/upload", fit).status == 422
    one.get("/fit")
    two.get("/fit")
    reply = one.post("/upload", fit).json
    assert reply["laws"] == ["besiroglu2024"]
    address = f"/part/answer?flops=1e18&near=llama3-70b&law=upload:{reply['sha256']}"
    assert "choose the file again" in two.get(address).json["error"]
    assert "choose the file again" not in one.get(address).json["error"]


def test_what_is_no_fit_is_refused_without_a_path(client: Client) -> None:
    client.get("/fit")
    for content in (b"{}", b"not json", b'=cmd|"/c calc"!A0,1\n', b"[" * 10_000):
        reply = client.post("/upload", content)
        assert reply.status == 422
        assert re.match(r"[^/]*$", reply.json["error"].split(" (")[0]), reply.json["error"]
        assert not client.app.state.uploads.files


def test_too_large_a_file_is_refused_at_once(client: Client) -> None:
    client.get("/fit")
    reply = client.send("POST", "/upload", b"", {"origin": f"http://{HOST}", "content-length": "200000000"})
    assert reply.status == 413
    assert client.send("POST", "/upload", bytes(MOST_BYTES + 1), {"origin": f"http://{HOST}"}).status == 413


def test_an_upload_that_never_ends_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes a byte at a time: the server gives it two minutes, here a moment."""
    monkeypatch.setattr("moelab.app.requests.LONGEST_UPLOAD", 0.05)
    client.get("/fit")

    async def trickle() -> dict[str, object]:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b"x", "more_body": True}

    reply = client.send("POST", "/upload", b"", {"origin": f"http://{HOST}"}, receive=trickle)
    assert reply.status == 408
    assert "took more than" in reply.json["error"]
    assert not client.app.state.uploads.files


@pytest.mark.parametrize("name", ["runs.xlsx", "runs.csv.gz", "runs.csv.zst", "runs.parquet"])
def test_what_unpacks_to_more_than_it_is_stays_out(client: Client, name: str) -> None:
    client.get("/fit")
    bomb = gzip.compress(bytes(1_000_000), mtime=0x0D0D0D0D)  # a time of carriage returns, which ended in a traceback
    assert "expected a table (.csv" in client.post(f"/fit/table?name={name}", bomb).json["error"]
    assert "not UTF-8" in client.post("/fit/table?name=runs.csv", bomb).json["error"]


def test_an_unknown_field_marks_no_other(client: Client) -> None:
    reply = client.get("/part/answer?flops=1e18&foo=bar")
    assert reply.status == 422
    assert reply.json["error"].startswith("foo: no such field; known: flops")
    assert reply.json["field"] == ""
    page = client.get("/?flops=1e18&foo=%3Cb%3E&near=olmoe-1b-7b")
    assert page.status == 200
    assert "field wide bad" not in page.text
    assert "a field that this page does not have, left out here: foo." in page.text
    assert 'value="1e18"' in page.text


@pytest.mark.parametrize(
    ("query", "kept", "bad"),
    [
        ("flops=abc&max-params=7B&hardware=h200", ['value="abc"', 'value="7B"', "<option selected>h200"], "flops"),
        ("flops=1e18&max-params=7B&hardware=%3Cb%3E", ['value="1e18"', 'value="7B"', "<option selected>&lt;b&gt;"],
         "hardware"),
        ("flops=1e18&max-params=%3Cb%3E&tpot=50ms", ['value="1e18"', 'value="&lt;b&gt;"', 'value="50ms"'],
         "max-params"),
        ("flops=1e18&flops=1e19&max-params=7B", ['value="1e18"', 'value="7B"'], "flops"),
        ("flops=1e18&law=nobody2020&max-params=7B", ['value="1e18"', 'value="7B"', "checked> nobody2020"], "law"),
    ],
)  # fmt: skip
def test_a_refused_value_empties_no_field(client: Client, query: str, kept: list[str], bad: str) -> None:
    """The form keeps what the address gives it; the refused value is marked."""
    page = client.get(f"/?{query}")
    assert page.status == 422
    for text in kept:
        assert text in page.text
    assert re.search(rf'class="field[ a-z]* bad" data-field="{bad}"', page.text)


def test_an_upload_that_is_not_here_marks_the_laws(visitors: Callable[[], Client]) -> None:
    """With a cookie or without."""
    stranger = visitors()
    query = "flops=1e18&law=upload:" + "0" * 64
    for _ in range(2):
        found = stranger.get(f"/part/answer?{query}").json
        assert found["field"] == "law"
        assert "choose the file again" in found["error"]
        stranger.get("/fit")


def test_an_error_of_ours_is_one_line(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error goes on to the server's log; the reply has its kind alone."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("moelab.app.server.read_state", fail)
    for address in ("/download/plan.json?flops=1e18", "/part/answer?flops=1e18"):
        with pytest.raises(ZeroDivisionError):
            client.get(address)
        reply = client.got[-1]
        assert reply.status == 500
        assert "unexpected ZeroDivisionError" in reply.text
        assert "secret" not in reply.text
        assert "\n" not in reply.text
    assert reply.json["error"].startswith("error: unexpected")
