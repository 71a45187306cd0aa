"""The `moelab` command: one thin file per sub-command, errors in one line, exit code 2 for bad input, 1 for failure.

A command's file imports typer alone and loads the rest when it runs, so `moelab --help` answers at once.
"""

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from moelab.errors import InputError, MoelabError
from moelab.printable import printable

# typer carries its own copy of click in some versions; its exceptions are reached through what typer exports.
_UsageError: Any = typer.BadParameter.__base__

COMMANDS = (
    "count",
    "data",
    "laws",
    "fit",
    "predict",
    "isoflop",
    "plan",
    "compare",
    "serving",
    "train",
    "generate",
    "export",
    "leaks",
    "routing",
    "study",
    "runs",
)
"""Sub-commands in the order `moelab --help` lists them; `count` lives in `moelab.cli.count:command`."""


class _LazyGroup(TyperGroup):
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
        single.command(name=cmd_name)(module.command)
        return typer.main.get_command(single)


# Plain help: rich would double the time that --help takes.
app = typer.Typer(cls=_LazyGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _root() -> None:
    """moelab: which Mixture-of-Experts model should we train?

    Every command takes --help and --json; --debug shows the traceback of a failure.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 1 failure, 2 bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if words == ["--version"]:
        from moelab.version import __version__

        print(__version__)
        raise SystemExit(0)
    raise SystemExit(_run([word for word in words if word != "--debug"], debug))


def _run(words: list[str], debug: bool) -> int:
    try:
        result = app(args=words, prog_name="moelab", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.ctx.get_help(), file=sys.stderr)
            return 2
        return _complain(error.format_message(), 2)
    except typer.Exit as error:
        return error.exit_code
    except typer.Abort:
        return _complain("interrupted", 1)
    except (InputError, MoelabError) as error:
        if debug:
            raise
        return _complain(str(error), 2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 1)
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
