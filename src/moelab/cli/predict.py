"""`moelab predict`: the loss that saved fits, or published laws, predict for a design."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moelab.cli.law_files import LawFiles

if TYPE_CHECKING:
    from moelab.fitting.predict_notes import LawPrediction


def command(
    fit_file: Annotated[str, typer.Argument(help="A fit file (moelab fit --out), or the id of a published law.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A variable, as NAME=VALUE (1e9, 300B); repeatable.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Take the variables from this model YAML or preset.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Training tokens, with --config.")] = None,
    seq_len: Annotated[str | None, typer.Option(help="Context, with --config.", show_default="4096")] = None,
    law: Annotated[list[str] | None, typer.Option("--law", help="Only these laws of the fit file.")] = None,
    law_file: LawFiles = None,
    noise: Annotated[bool, typer.Option("--noise", help="Interval of one more measured run, not of the law.")] = False,
    against: Annotated[
        str | None, typer.Option(help="A second design at equal FLOPs: which is better, by the floor.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Predict a loss with its 80 % interval.

    The distance from the fitted range stands beside it.

    Example: moelab predict fit.json --set params_total=1e9 --set tokens=20B
    """
    from moelab.cli.assignments import parse_assignments
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError
    from moelab.fitting.predict import predict
    from moelab.quantities import format_outside
    from moelab.runs.find import find_design

    if bool(settings) == bool(config):
        raise InputError("predict: give either --set NAME=VALUE for each variable, or --config with --tokens")
    if against and not config:
        raise InputError("--against: goes with --config")
    if settings and tokens is not None:
        raise InputError("--tokens: goes with --config; with --set, give --set tokens=...")
    if settings and seq_len is not None:
        raise InputError("--seq-len: goes with --config, whose FLOPs it counts; with --set, give the law's variables")
    values: dict[str, Any] = dict(parse_assignments(settings, "--set")) if settings else {}
    design = None if config is None else find_design(config)
    if design is not None:
        values = {"tokens": tokens, "seq_len": seq_len or "4096"}
        values |= {} if against is None else {"against": find_design(against)}
    found = predict(fit_file, design, laws=law or (), noise=noise, **values)
    if json:
        print_json(found.to_dict())
        return
    kinds = list(dict.fromkeys(each.kind for each in found.laws.values()))
    print_table(
        ["law", " or ".join(kinds), "p10", "p90", "outside the fitted range"],
        [
            (
                name if len(kinds) == 1 else f"{name} ({each.kind})",
                *(_cell(number) for number in (each.value, each.low, each.high)),
                format_outside(each.extrapolation),
            )
            for name, each in found.laws.items()
        ],
    )
    _print_floor(found.laws, [name for name in (config, against) if name is not None], found.tokens)
    for note in found.notes:
        print_line(f"note: {note}")
    for name, reason in found.failed.items():
        print_line(f"left out: {reason if reason.startswith(name) else f'{name}: {reason}'}")


def _print_floor(laws: "Mapping[str, LawPrediction]", names: list[str], tokens: tuple[float, ...]) -> None:
    """The losses from the lowest floor to the highest and, of two designs, how often the first is better: a table for
    the laws whose floor has a posterior, and one for those whose floor is swept."""
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_number

    designs = [f"loss of {name} on {format_number(each)} tokens" for name, each in zip(names, tokens, strict=True)]
    for at in dict.fromkeys(tuple(part.at for part in each.floor) for each in laws.values() if each.floor):
        rows, swept = [], at[0].endswith("x")
        for law, each in laws.items():
            if tuple(part.at for part in each.floor) != at:
                continue
            rows.append((f"{law}: floor", *(f"{part.floor:.3f}" for part in each.floor)))
            for k, design in enumerate(designs or ["loss"]):
                rows.append((f"{law}: {design}", *(f"{part.losses[k]:.4f}" for part in each.floor)))
            if names[1:]:
                rows.append(_better(law, names[0], each, swept))
        how = f"swept from {at[0]} to {at[-1]}" if swept else f"fifths of its posterior, {at[0]} to {at[-1]}"
        print_line()
        print_table(["", *at], rows, title=f"Loss by the floor ({how})")
        if names[1:]:
            print_line(f"{names[1]} takes as many training FLOPs as {names[0]}.")


def _better(law: str, first: str, prediction: "LawPrediction", swept: bool) -> tuple[str, ...]:
    """The share of draws in which the first design has the lower loss; of a swept floor, whether it has."""
    shares = [part.lowest[0] for part in prediction.floor]
    if swept:
        return f"{law}: {first} is better", *("yes" if share else "no" for share in shares)
    return f"{law}: draws in which {first} is better", *(f"{share:.0%}" for share in shares)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 1e4 else f"{value:.4g}"
