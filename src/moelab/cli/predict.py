"""`moelab predict`: the loss that saved fits, or published laws, predict for a design."""

from typing import Annotated, Any

import typer


def command(
    fit_file: Annotated[str, typer.Argument(help="A fit file (moelab fit --out), or the id of a published law.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A variable, as NAME=VALUE (1e9, 300B); repeatable.")
    ] = None,
    config: Annotated[str | None, typer.Option(help="Take the variables from this model YAML or preset.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Training tokens, with --config.")] = None,
    seq_len: Annotated[str, typer.Option(help="Context, with --config.")] = "4096",
    law: Annotated[list[str] | None, typer.Option("--law", help="Only these laws of the fit file.")] = None,
    noise: Annotated[bool, typer.Option("--noise", help="Interval of one more measured run, not of the law.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Predict a loss with its 80 % interval and its distance from the fitted range.

    Example: moelab predict fit.json --set params_total=1e9 --set tokens=20B
    """
    from moelab.cli.assignments import parse_assignments
    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError

    if bool(settings) == bool(config):
        raise InputError("predict: give either --set NAME=VALUE for each variable, or --config with --tokens")
    if settings and tokens is not None:
        raise InputError("--tokens: goes with --config; with --set, give --set tokens=...")
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    values = parse_assignments(settings, "--set") if settings else None
    for name, predict in _sources(fit_file, law).items():
        try:
            found[name] = predict(values, config, tokens, seq_len, noise)
        except InputError as error:
            failed[name] = str(error)
    if not found:
        raise InputError(next(iter(failed.values())))
    if json:
        print_json({"predictions": found, "failed": failed})
        return
    kinds = list(dict.fromkeys(p["kind"] for p in found.values()))
    print_table(
        ["law", " or ".join(kinds), "p10", "p90", "outside the fitted range"],
        [
            (
                name if len(kinds) == 1 else f"{name} ({p['kind']})",
                *(_cell(p[p["kind"]][end]) for end in ("value", "low", "high")),
                _reach(p["extrapolation"]),
            )
            for name, p in found.items()
        ],
    )
    for name, reason in failed.items():
        print_line(f"left out: {reason if reason.startswith(name) else f'{name}: {reason}'}")


def _sources(fit_file: str, chosen: list[str] | None) -> dict[str, Any]:
    """Law id -> a function that predicts: from a fit file, or from the published coefficients."""
    from functools import partial
    from pathlib import Path

    from moelab.errors import InputError
    from moelab.fitting import load_fits
    from moelab.laws import all_laws, get_law

    if not Path(fit_file).exists() and fit_file.removesuffix("+reuse") in all_laws():
        law = get_law(fit_file)
        if any(name != law.id for name in chosen or []):
            raise InputError(f"--law: chooses among the fits of a file; {fit_file} is one published law")
        return {fit_file: partial(_published, law)}
    fits = load_fits(fit_file)
    for name in chosen or []:
        if name not in fits:
            raise InputError(f"--law: {fit_file} holds no fit of {name}; it has {', '.join(fits)}")
    return {name: partial(_fitted, fitted) for name, fitted in fits.items() if not chosen or name in chosen}


def _fitted(
    fitted: Any, values: dict[str, float] | None, config: str | None, tokens: str | None, seq_len: str, noise: bool
) -> dict[str, Any]:
    from moelab.fitting.columns import check_names

    if values is not None:
        check_names([name for name in values if name not in fitted.ranges], fitted.law)
    given = values if values is not None else _converted(fitted.law, config, tokens, seq_len, False)
    p = fitted.predict(given, noise=noise)
    return _entry(fitted.law.kind, p.value[0], p.low[0], p.high[0], p.extrapolation[0])


def _published(
    law: Any, values: dict[str, float] | None, config: str | None, tokens: str | None, seq_len: str, noise: bool
) -> dict[str, Any]:
    from moelab.fitting.columns import check_names, columns_of
    from moelab.fitting.designs import design_variables, predicted_value

    if values is not None:
        check_names(list(values), law)
    given = values if values is not None else _converted(law, config, tokens, seq_len, True)
    numbers = design_variables(columns_of(given), law, tuple(law.ranges))
    return _entry(law.kind, predicted_value(law, None, numbers)[0], None, None, law.extrapolation(numbers)[0])


def _converted(law: Any, config: str | None, tokens: str | None, seq_len: str, published: bool) -> dict[str, Any]:
    from moelab.architecture import load_model
    from moelab.errors import InputError
    from moelab.quantities import MOST_CONTEXT, MOST_TOKENS, check_at_most, parse_count, parse_number

    if tokens is None:
        raise InputError("--tokens: --config needs the training tokens, such as 300B")
    trained, context = parse_number(tokens, "--tokens"), parse_count(seq_len, "--seq-len")
    check_at_most(trained, MOST_TOKENS, "--tokens")
    check_at_most(context, MOST_CONTEXT, "--seq-len")
    design = law.variables_of(load_model(str(config)), trained, context, published=published)
    if not design.covered:
        raise InputError(f"{law.id}: {design.why()}")
    return dict(design.variables)


def _entry(kind: str, value: Any, low: Any, high: Any, extrapolation: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        kind: {"value": value, "low": low, "high": high},
        "extrapolation": extrapolation,
    }


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.4f}" if value < 1e4 else f"{value:.4g}"


def _reach(distance: float) -> str:
    if distance != distance:
        return "unknown"
    return "inside" if distance <= 0 else f"{10**distance:.3g}x" if distance < 300 else "beyond measure"
