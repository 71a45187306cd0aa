"""Run the planner page until it is interrupted."""

import socket

import uvicorn

from moelab.app.guard import LOOPBACK
from moelab.app.server import application
from moelab.errors import InputError

ANY = ("0.0.0.0", "::")


def serve(host: str, port: int, hosts: tuple[str, ...], frames: tuple[str, ...], processes: int) -> None:
    """Listen on `host`:`port` and answer to loopback, to `host` and to `hosts`. Raises InputError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        raise InputError(f"--host, --port: cannot listen on {host}:{port}: {error.strerror or error}") from None
    listener.listen()  # browsers that come before the server is up wait for it
    own = () if host in (*ANY, *LOOPBACK) else (f"[{host}]" if ":" in host else host,)
    shown = "localhost" if host in (*ANY, "127.0.0.1") else host
    print(f"moelab app: http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    if host in ANY and not hosts:
        print("note: other machines reach it by names given with --allow-host NAME, or any name with --allow-host '*'")
    config = uvicorn.Config(application((*own, *hosts), frames, processes), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])
