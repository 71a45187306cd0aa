"""The option --law-file: laws of one's own, known by their ids from then on."""

from typing import Annotated

import typer


def _register(paths: list[str] | None) -> list[str] | None:
    """Register every file's law; the ids stand in place of the paths."""
    from moelab.laws import register_law

    return [register_law(path).id for path in paths or []] or None


LawFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--law-file", help="A law of your own: .yaml with a formula, or .py with LAW (it is run).", callback=_register
    ),
]
"""The ids of the laws in the given files, which are registered as the option is read."""
