"""Commands and groups of commands with one style of help: plain text, options in groups, as wide as the terminal.

Plain text because rich would double the time that `--help` takes. What is near to an unknown command is suggested, and
an interrupted command ends with the line that `interrupt` has for it.
"""

import os
from difflib import get_close_matches
from typing import Any

from typer.core import TyperCommand, TyperGroup

from moelab.cli.given import is_given
from moelab.cli.interrupt import Interrupted, continues
from moelab.cli.kinds import kind_of
from moelab.cli.panels import OTHERS, PANELS, panel_of
from moelab.errors import InputError

_WIDEST = 100
"""Columns of help at most, where COLUMNS does not name a width."""
_LONGEST_OPTION = 30


def settings() -> dict[str, Any]:
    """What every command's context inherits: `-h`, and the width of help."""
    columns = os.environ.get("COLUMNS", "")
    widest = int(columns) if columns.isdigit() and int(columns) > 0 else _WIDEST
    return {"help_option_names": ["-h", "--help"], "max_content_width": widest}


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    """Arguments, then the options by group."""
    panels: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", *PANELS, OTHERS)}
    for param in command.get_params(ctx):
        kind = kind_of(ctx.info_name, param.name)
        if kind is not None and param.param_type_name == "option" and not param.is_flag and param.metavar is None:
            param.metavar = f"<{kind}>"
        record = param.get_help_record(ctx)
        if record is not None:
            argument = param.param_type_name == "argument"
            panels["Arguments" if argument else panel_of(ctx.info_name, param.name)].append(record)
    rows = [row for panel in panels.values() for row in panel]
    width = max((len(first) for first, _ in rows if len(first) <= _LONGEST_OPTION), default=0)
    for name, panel in panels.items():
        if panel:
            with formatter.section(name):
                formatter.write_dl([(first.ljust(width), second) for first, second in panel], width)


_FIELDS = {"serving.traffic.gpus": "serve_gpus", "serving.tokens": "serve_tokens"}
"""Fields of a budget whose option has another name."""


def with_flag(message: str, ctx: Any) -> str:
    """The message of an error; a field at its beginning that an option of the command line gave is named as that."""
    before = f"{ctx.info_name}: " if message.startswith(f"{ctx.info_name}: ") else ""
    path, colon, rest = message.removeprefix(before).partition(":")
    field = _FIELDS.get(path, path.rpartition(".")[2])
    for param in ctx.command.params:
        given = is_given(ctx, param.name)
        if colon and param.param_type_name == "option" and given and field in (param.name, param.opts[0][2:]):
            return f"{before}{max(param.opts, key=len)}:{rest}"
    return message


class Command(TyperCommand):
    """One command."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write its arguments and its options by group."""
        _write_options(self, ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run it. Raises Interrupted, with what the same command will continue with, for Ctrl-C."""
        try:
            return super().invoke(ctx)
        except InputError as error:
            error.args = (with_flag(str(error), ctx),)
            raise
        except KeyboardInterrupt as stopped:
            raise Interrupted(str(stopped) or continues(ctx.command_path)) from None


class Group(TyperGroup):
    """Several commands under one name."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write its options by group, then its commands."""
        _write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is asked for; for an unknown one the error suggests the nearest."""
        if not args[0].startswith("-") and self.get_command(ctx, args[0]) is None and not ctx.resilient_parsing:
            known = self.list_commands(ctx)
            near = get_close_matches(args[0], known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            ctx.fail(f"No such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)
