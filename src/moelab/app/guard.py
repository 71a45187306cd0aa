"""What every request has to pass: its host, its origin, its size; and the headers of every reply."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
LONGEST_ADDRESS = 4000
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors {frames}"
)
"""Vega compiles its expressions, hence unsafe-eval; no script stands in a page or comes from elsewhere."""


class Guard:
    """Refuses requests for other hosts (DNS rebinding), and writes that another site's page sends.

    `hosts` are allowed names without ports, besides loopback; `*` allows every name. `frames` are the sites that may
    show the page in a frame.
    """

    def __init__(self, app: App, hosts: tuple[str, ...] = (), frames: tuple[str, ...] = ()) -> None:
        self.app, self.hosts = app, {*LOOPBACK, *(host.lower() for host in hosts)}
        self.policy = POLICY.format(frames=" ".join(frames) or "'none'")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal:
            return await _plain(self._secured(send), *refusal)
        return await self.app(scope, receive, self._secured(send))

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if "*" not in self.hosts and host_name(host) not in self.hosts:
            return 400, "host: this server does not answer to that name; moelab app --allow-host NAME adds one"
        if len(scope.get("query_string", b"")) > LONGEST_ADDRESS:
            return 414, f"address: at most {LONGEST_ADDRESS} characters after the question mark"
        if scope["method"] not in ("GET", "HEAD"):
            origin = headers.get("origin", "")
            if urlsplit(origin).netloc.lower() != host.lower():
                return 403, "origin: files are taken from this server's own page only"
        return None

    def _secured(self, send: Send) -> Send:
        async def secured(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", self.policy.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                    (b"cross-origin-resource-policy", b"same-origin"),
                ]
            await send(message)

        return secured


def host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    name, _, port = host.rpartition(":")
    return (name if name and port.isdigit() else host).lower()


async def _plain(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
