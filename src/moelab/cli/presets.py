"""`moelab presets`: the public models by name, with their published and counted parameters."""

from typing import Annotated

import typer


def command(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/presets.md; needs torch.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """List the public models that every command takes by name.

    Parameters are those of the architecture, beside what its makers print.

    Example: moelab presets
    """
    from moelab.architecture.released import preset_columns, preset_rows, released_models
    from moelab.cli.output import print_json, print_table
    from moelab.errors import InputError

    if markdown and json:
        raise InputError("presets: --markdown and --json exclude each other")
    if markdown:
        from moelab.export.presets_page import presets_markdown

        print(presets_markdown(), end="")
    elif json:
        print_json([model.to_dict() for model in released_models().values()])
    else:
        print_table(preset_columns(), preset_rows())
