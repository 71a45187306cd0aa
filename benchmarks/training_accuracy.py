"""Predicted against measured training speed, one model left out at a time; and the fit that ships.

    python benchmarks/training_accuracy.py [ROWS.csv] [--by model|hardware] [--shipped] [--write]

Of every setup (model, device, number of devices, precision, sequence length) the newest release counts. MFU is of the
bf16 peak, attention scores counted as causal. Limits: the median over left-out models of the median absolute error 0.20
(aim 0.15); 80 % intervals hold 0.70 to 0.90 of the rows, with a median half-width of at most 0.35. `--shipped`
predicts rows with the calibration that ships instead, without a fit: for rows of one's own. `--write` fits all rows and
writes `src/moelab/serving/training.yaml`, or the file named. The last line predicts the same rows on the layouts that a
plan would choose. About one minute of processor time; `--write` adds half a minute.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from moelab.architecture.layout import Layout
from moelab.config import dump_yaml
from moelab.files import write_text
from moelab.serving.training_calibration import TrainingCalibration, training_calibration
from moelab.serving.training_fit import HeldOut, calibrate_training, held_out, left_out
from moelab.serving.training_layout import Cluster, choose_layouts, forwards
from moelab.serving.training_outside import outside_rows
from moelab.serving.training_rows import TrainingRow, read_training_rows

HERE = Path(__file__).parent
SHIPPED = HERE.parent / "src" / "moelab" / "serving" / "training.yaml"
SOURCE = "NVIDIA NeMo Megatron-Bridge performance pages at 067f987 (Apache-2.0); benchmarks/training_accuracy.py"


def table(results: Sequence[HeldOut]) -> list[str]:
    """One line per row, the worst first."""
    lines = [
        "| model | device | precision | release | layout | MFU measured | predicted, 80 % | predicted / measured |"
    ]
    lines.append("|---" * 8 + "|")
    for held in sorted(results, key=lambda one: -abs(one.log_error)):
        row, ratio, width = held.row, float(np.exp(-held.log_error)), float(np.exp(held.half_width))
        release = ".".join(f"{part:02d}" for part in row.release)
        predicted = row.mfu * ratio
        interval = f"{predicted:.2f} [{predicted / width:.2f}, {predicted * width:.2f}]"
        layout = f"{row.layout}, {row.setup.micro_batch} x {row.setup.seq_len}"
        precision = row.setup.precision
        lines.append(
            f"| {row.model} | {row.hardware} | {precision} | {release} | {layout} | {row.mfu:.2f} | {interval} "
            f"| {ratio:.2f}{'' if held.covered else ', outside'} |"
        )
    return lines


def summary(results: Sequence[HeldOut], by: str) -> list[str]:
    """Median errors by what was left out, coverage and half-width."""
    groups = sorted({getattr(held.row, by) for held in results})
    medians = {g: float(np.median([h.error for h in results if getattr(h.row, by) == g])) for g in groups}
    lines = [f"{name}: {value:.3f}" for name, value in medians.items()]
    lines.append(f"median over left-out {by}s of the median absolute error: {np.median(list(medians.values())):.3f}")
    lines.append(f"80 % intervals hold {np.mean([held.covered for held in results]):.2f} of {len(results)} rows")
    lines.append(f"median half-width: {np.median([np.sinh(held.half_width) for held in results]):.2f}")
    return lines


def on_chosen_layout(row: TrainingRow, calibration: TrainingCalibration) -> TrainingRow | None:
    """The row on the layout that a plan would choose for its model, devices, batch and sequence length; None where none
    that it tries fits the memory (it splits no sequence over devices)."""
    setup = row.setup
    cluster = Cluster(
        device=setup.device, gpus=row.layout.devices, precision=setup.precision, seq_len=int(setup.seq_len),
        batch_tokens=float(setup.global_batch * setup.seq_len),
    )  # fmt: skip
    found = choose_layouts(row.shape, cluster, calibration)
    if not np.isfinite(found.seconds).all():
        return None
    layout = Layout(**{name: int(np.ravel(getattr(found.layout, name))[0]) for name in Layout.model_fields})
    passes = float(forwards(found.recompute)[0])
    chosen = replace(setup, layout=layout.sizes, micro_batch=int(found.micro_batch[0]), forwards=passes)
    return replace(row, layout=layout, setup=chosen)


def chosen_summary(results: Sequence[HeldOut], by: str) -> list[str]:
    """The same rows on the layouts that plans choose: what a plan's own choice adds to the error."""
    groups = sorted({getattr(held.row, by) for held in results})
    medians = [float(np.median([h.error for h in results if getattr(h.row, by) == g])) for g in groups]
    ratios = sorted(((float(np.exp(-held.log_error)), held.row) for held in results), key=lambda one: one[0])
    ends = [f"{ratio:.2f} ({row.model}, {row.hardware}, {row.layout})" for ratio, row in (ratios[0], ratios[-1])]
    return [
        f"on the layouts that plans choose, {len(results)} rows: median over left-out {by}s {np.median(medians):.3f}, "
        f"80 % intervals hold {np.mean([held.covered for held in results]):.2f}, ratios from {' to '.join(ends)}"
    ]


def write(rows: Sequence[TrainingRow], path: Path) -> None:
    """The fit to all rows, as the package ships it."""
    fitted = outside_rows(rows, calibrate_training(rows, "megatron-bridge-26.08", SOURCE))
    rounded = {name: round(getattr(fitted, name), 4) for name in ("residual", "error", "pair_residual")}
    digits = {**fitted.to_dict(), **rounded}
    for each in digits["outside"].values():
        each.update({name: round(value, 4) for name, value in each.items()})
    for each in (digits["coefficients"], *digits["members"]):
        each.update({name: float(f"{value:.5g}") for name, value in each.items()})
    comment = (
        "# Written by benchmarks/training_accuracy.py --write; coefficients are explained in training_calibration.py.\n"
    )
    write_text(path, comment + dump_yaml(digits))


def main() -> None:
    """Print the table and the summary."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="?", default=str(HERE / "measured" / "training.csv"))
    parser.add_argument("--write", nargs="?", type=Path, const=SHIPPED, help="write the calibration that ships")
    parser.add_argument("--by", choices=["model", "hardware"], default="model", help="what is left out")
    parser.add_argument("--shipped", action="store_true", help="leave nothing out: predict with what ships")
    options = parser.parse_args()
    rows = read_training_rows(options.rows)
    shipped = training_calibration() if options.shipped else None
    known = [(row, shipped) for row in rows] if shipped else list(left_out(rows, options.by))
    results = [held_out(row, calibration) for row, calibration in known]
    placed = [(on_chosen_layout(row, calibration), calibration) for row, calibration in known]
    chosen = [held_out(row, calibration) for row, calibration in placed if row is not None]
    print("\n".join([*table(results), "", *summary(results, options.by), *chosen_summary(chosen, options.by)]))
    if options.write:
        write(rows, options.write)


if __name__ == "__main__":
    main()
