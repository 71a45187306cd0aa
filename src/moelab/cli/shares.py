"""Options that take a share: 0.1, or 10%, as configs read them."""

import typer


def read_share(text: str | float) -> float:
    """The parser of such an option. Raises typer's own error, which names the option."""
    from moelab.errors import InputError
    from moelab.quantities import parse_share

    try:
        return parse_share(text)
    except InputError as error:
        raise typer.BadParameter(str(error).removeprefix("value: ")) from None
