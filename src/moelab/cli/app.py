"""`moelab app`: the planner as a page in the browser."""

from typing import Annotated

import typer


def command(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name that the server answers to, besides localhost; repeatable.")
    ] = None,
    allow_frame: Annotated[
        list[str] | None, typer.Option(help="A site that may show the page in a frame, such as https://huggingface.co.")
    ] = None,
    processes: Annotated[int, typer.Option(help="Processes that plan.")] = 2,
) -> None:
    """Open the planner as a page: change a limit, see the answer.

    The page listens on this machine alone unless --host opens it to others. Uploaded fits are read as data, seen by
    their own visitor alone and deleted when the server ends.

    Example: moelab app --port 8000
    """
    from moelab.errors import InputError

    if not 0 <= port <= 65535:
        raise InputError(f"--port: must be 0 to 65535, got {port}")
    if not 1 <= processes <= 64:
        raise InputError(f"--processes: must be 1 to 64, got {processes}")
    try:
        from moelab.app.serve import serve
    except ImportError as error:
        raise InputError(f"app: needs the extra app (pip install 'moelab[app]'): {error}") from None
    serve(host, port, tuple(allow_host or ()), tuple(allow_frame or ()), processes)
