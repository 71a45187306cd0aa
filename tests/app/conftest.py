"""The app called as a server calls it, without a port: plans in this process, one visitor per client."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from moelab.app.uploads import Uploads
from tests.app.browser import CHROMIUM

if find_spec("starlette") is None:  # the extra app
    collect_ignore = ["test_server.py", "test_fit_routes.py"]

HOST = "localhost:8000"


class Inline:
    """Workers that answer in this process and remember nothing."""

    async def ask(self, key: Any, function: Callable[..., Any], *arguments: Any, **how: Any) -> Any:
        found = None
        while found is None:  # work that is done in several calls
            found = function(*arguments)
        return found


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One browser: it keeps its cookie and sends the page's own origin with what it posts."""

    app: Any
    cookies: dict[str, str] = field(default_factory=dict)
    got: list[Reply] = field(default_factory=list)

    def get(self, address: str, **headers: str) -> Reply:
        return self.send("GET", address, b"", headers)

    def post(self, address: str, body: bytes, **headers: str) -> Reply:
        return self.send("POST", address, body, {"origin": f"http://{HOST}", **headers})

    def send(
        self, method: str, address: str, body: bytes, headers: dict[str, str], receive: Callable[[], Any] | None = None
    ) -> Reply:
        path, _, query = address.partition("?")
        sent = {"host": HOST, "content-length": str(len(body)), **headers}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()], "scheme": "http",
            "server": ("localhost", 8000), "client": ("127.0.0.1", 1), "http_version": "1.1", "root_path": "",
        }  # fmt: skip
        got: list[MutableMapping[str, Any]] = []

        async def whole() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def take(message: MutableMapping[str, Any]) -> None:
            got.append(message)

        try:
            asyncio.run(self.app(scope, receive or whole, take))
        finally:
            self._keep(got)
        return self.got[-1]

    def _keep(self, got: list[MutableMapping[str, Any]]) -> None:
        """A reply, which comes before an error that the server lets through."""
        if not got:
            return
        found = {key.decode(): value.decode() for key, value in got[0]["headers"]}
        if "set-cookie" in found:
            name, _, value = found["set-cookie"].split(";")[0].partition("=")
            self.cookies[name] = value
        self.got.append(Reply(got[0]["status"], found, b"".join(part.get("body", b"") for part in got[1:])))


@pytest.fixture(scope="module")
def _served_without_library(pages_without_library: None) -> Iterator[None]:
    """What the server keeps of its static files is read anew before and after."""
    from moelab.app.static import stamp, static_text

    for kept in (stamp, static_text):
        kept.cache_clear()
    yield
    for kept in (stamp, static_text):
        kept.cache_clear()


@pytest.fixture
def visitors(_served_without_library: None) -> Iterator[Callable[[], Client]]:
    """A function that returns a new visitor of one server."""
    from moelab.app.server import application

    app = application()
    app.state.workers, app.state.tables, app.state.uploads = Inline(), Inline(), Uploads()
    app.state.jobs = SimpleNamespace()
    yield lambda: Client(app)
    app.state.uploads.close()


@pytest.fixture
def client(visitors: Callable[[], Client]) -> Client:
    return visitors()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A server of its own on a free port."""
    command = [sys.executable, "-m", "moelab", "app", "--port", "0", "--processes", "1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    yield line.split()[2]
    server.terminate()
    server.wait(20)
    server.stdout.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright (pip install playwright)")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test where a script fails or anything is asked of another host."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    found.set_default_timeout(60_000)
    wrong: list[str] = []
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    found.on("request", lambda asked: wrong.append(asked.url) if re.match(r"\w+://(?!localhost)", asked.url) else None)
    yield found
    context.close()
    assert wrong == []
