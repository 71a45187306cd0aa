"""The `moelab` command: one thin file per sub-command, errors in one line, exit code 2 for bad input, 1 for failure.

A command's file imports typer alone and loads the rest when it runs, so `moelab --help` answers at once.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from moelab.cli.help import Command, Group, settings
from moelab.cli.interrupt import CODE, Interrupted
from moelab.errors import InputError, MoelabError
from moelab.printable import printable

# typer carries its own copy of click in some versions; its exceptions are reached through what typer exports.
_UsageError: Any = typer.BadParameter.__base__

COMMANDS = (
    "count",
    "presets",
    "data",
    "laws",
    "fit",
    "predict",
    "isoflop",
    "plan",
    "app",
    "compare",
    "serving",
    "calibrate",
    "train",
    "generate",
    "export",
    "leaks",
    "routing",
    "study",
    "runs",
)
"""Sub-commands in the order `moelab --help` lists them; `count` lives in `moelab.cli.count:command`."""


class _LazyGroup(Group):
    """Imports a command's file when that command is first asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"moelab.cli.{cmd_name}")
        if hasattr(module, "app"):
            return typer.main.get_command(module.app)
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name=cmd_name, cls=Command)(module.command)
        return typer.main.get_command(single)


root = typer.Typer(cls=_LazyGroup, no_args_is_help=True, rich_markup_mode=None)


def _print_version(asked: bool) -> None:
    if asked:
        from moelab.version import __version__

        print(__version__)
        raise typer.Exit


@root.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure; goes anywhere.")] = False,
) -> None:
    """moelab: which Mixture-of-Experts model should we train?

    Every command takes -h or --help, and --json for machines.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 1 failure, 2 bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    raise SystemExit(_run([word for word in words if word != "--debug"], debug))


def _run(words: list[str], debug: bool) -> int:
    try:
        result = root(args=words, prog_name="moelab", standalone_mode=False, **settings())
        if result == CODE:  # typer's answer to Ctrl-C outside of a command's own work
            raise Interrupted
        return result if isinstance(result, int) else 0
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.ctx.get_help(), file=sys.stderr)
            return 2
        return _complain(_usage(error), 2)
    except typer.Exit as error:
        return error.exit_code
    except (Interrupted, KeyboardInterrupt, typer.Abort) as stopped:
        what = f"interrupted: {stopped}" if str(stopped) else "interrupted"
        print(" ".join(what.split()), file=sys.stderr)
        return CODE
    except (InputError, MoelabError) as error:
        if debug:
            raise
        return _complain(str(error), 2 if isinstance(error, InputError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if debug:
            raise
        return _complain(f"unexpected {type(error).__name__}: {error} (run again with --debug to see where)", 1)


def _complain(message: str, code: int) -> int:
    print("error: " + printable(" ".join(message.split())), file=sys.stderr)
    return code


def _usage(error: Any) -> str:
    """Typer's message, with the nearest option for an unknown one."""
    near = getattr(error, "possibilities", None)
    return f"{error.message}; did you mean {near[0]}?" if near else str(error.format_message())
