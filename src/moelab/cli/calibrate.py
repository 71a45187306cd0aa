"""`moelab calibrate`: the serving model fitted to measured rows, or this machine measured."""

from typing import Annotated

import typer


def command(
    measured: Annotated[
        str | None, typer.Argument(help="Measured rows (CSV); without it this machine is measured.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Write a hardware file that --hardware reads everywhere.")] = None,
    device: Annotated[str | None, typer.Option(help="Which device of the rows the file describes.")] = None,
    engine: Annotated[str | None, typer.Option(help="Which engine of the rows the file describes.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Fit the serving model to measured rows, or measure this machine.

    Columns: model, hardware, precision, engine, gpus, input_length, output_length, concurrency (a number or max), and
    median_tpot_s, or output_tokens_per_s_per_gpu at max.

    Example: moelab calibrate measured.csv --out mine.yaml
    """
    from pathlib import Path

    from moelab.cli.output import print_json, print_line, print_table
    from moelab.errors import InputError

    if out is not None and Path(out).suffix not in (".yaml", ".yml"):
        raise InputError(f"--out: must end in .yaml or .yml, got {out}")
    if measured is None:
        if device is not None or engine is not None:
            raise InputError("--device, --engine: choose among measured rows; give a table")
        from moelab.model.machine_rates import measure_machine

        machine, rates = measure_machine()
        if out is not None:
            machine.to_yaml(out)
        if json:
            print_json(rates)
            return
        print_table([machine.name, ""], [(name, f"{value:.4g}") for name, value in rates.items()])
    else:
        from moelab.serving.calibrate import calibrate
        from moelab.serving.measured import find_model, read_measured

        result = calibrate(read_measured(measured, find_model), device, engine)
        if out is not None:
            result.hardware.to_yaml(out)
        if json:
            print_json(result.to_dict())
            return
        calibration = result.hardware.calibration
        assert calibration is not None
        shown = result.to_dict()["coefficients"]
        rows = [
            (name, f"{v['value']:.4g}" + (f" [{v['low']:.4g}, {v['high']:.4g}]" if v["low"] is not None else " (held)"))
            for name, v in shown.items()
        ]
        print_table([result.hardware.name, ""], [*rows, ("slowdown", f"{calibration.slowdown:.3f}")])
        print_line(calibration.line())
        for note in result.notes:
            print_line(f"note: {note}")
        if result.speculative:
            print_line(f"note: {result.speculative} rows with speculative decoding were left out")
    if out is not None:
        print_line(f"wrote {out}; pass it as --hardware {out}")
