"""Options that another option leaves without effect."""

from collections.abc import Sequence

import typer


def is_given(asked: typer.Context, name: str) -> bool:
    """Whether the command line gives this parameter."""
    return str(getattr(asked.get_parameter_source(name), "name", "")) == "COMMANDLINE"


def refuse_given(asked: typer.Context, names: Sequence[str], why: str) -> None:
    """Raises InputError, one line that ends with `why`, for the first of these options that the command line gives."""
    from moelab.errors import InputError

    for name in names:
        if is_given(asked, name):
            raise InputError(f"--{name.replace('_', '-')}: {why}")
