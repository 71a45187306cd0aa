"""What to beware of in a serving cost: what no measured row supports, and heads that engines do not split so."""

from typing import Any

from moelab.architecture import ModelConfig
from moelab.serving.calibration import STATED, Calibration, doubted
from moelab.serving.hardware import Hardware, catalogue
from moelab.serving.slips import slips
from moelab.serving.traffic import Traffic


def doubts(model: ModelConfig, cost: dict[str, Any], hardware: Hardware, traffic: Traffic) -> list[str]:
    """What to beware of in the answer of `serve_one` for this model."""
    lines = []
    if hardware.calibrated(traffic.engine).id == STATED:
        lines.append(
            "not calibrated: the hardware file states its own shares of peak, and no fixed cost is counted; such "
            "rooflines were 1.3 to 3.5 times too fast beside measured engines"
        )
    products = hardware.calibrated(traffic.engine).products
    if products is not None and traffic.precision not in products:
        lines.append(
            f"not calibrated: products in {traffic.precision} were not measured ({', '.join(products)} were); they are "
            "taken for the larger of reading and computing, which is too fast for few rows"
        )
    heads = 1 if model.mla is not None else model.n_kv_heads
    if cost["parallel"] == "tensor" and cost["gpus"] > heads:
        what = "one latent KV cache" if model.mla is not None else f"{heads} KV head{'s' * (heads > 1)}"
        lines.append(
            f"tensor parallel over {cost['gpus']:,} devices but {what}: those beyond {heads} hold copies of the cache"
        )
    lines += weights_alone(model, hardware, traffic) + uneven_heads(model, cost) + borrowed(hardware)
    lines += without_rows(hardware, traffic) + slips(cost, traffic)
    most = hardware.calibrated(traffic.engine).most_gpus
    beside = "; exchanges run beside computing, in two half batches" if cost["overlapped"] else ""
    if cost["gpus"] > hardware.node:
        lines.append(f"not calibrated: {cost['gpus']:,} devices span several nodes of {hardware.node}{beside}")
    elif most is not None and cost["gpus"] > most:
        lines.append(
            f"not calibrated: no measured rows of more than {most:,} devices together, {cost['gpus']:,} here{beside}"
        )
    return lines


def without_effect(model: ModelConfig, cost: dict[str, Any], asked: Traffic) -> list[str]:
    """What was asked and changes nothing in the answer of `serve_one` for this model."""
    lines = []
    if asked.for_model(model) != asked:
        lines.append(
            f"{asked.precision} stores experts alone, and a dense model has none: every number is that of "
            f"{asked.for_model(model).precision}"
        )
    if asked.imbalance is not None and (model.moe is None or cost["parallel"] != "expert"):
        why = "a dense model has no experts" if model.moe is None else "the experts are not split over devices here"
        lines.append(f"imbalance {asked.imbalance:g} changes nothing: {why}")
    return lines


def not_calibrated(hardware: Hardware, traffic: Traffic, gpus: int = 1) -> list[str]:
    """Names of what is asked and no measured rows of the calibration support: modes, precisions, the engine, a replica
    of more `gpus` than a node, or than any row, and `shares` where the hardware file's own shares of peak stand in."""
    calibration = hardware.calibrated(traffic.engine)
    products = calibration.products
    known = {
        "precision": calibration.precisions if products is None else tuple(products),
        "kv_precision": calibration.kv_precisions,
    }
    names = [name for name, rows in known.items() if rows is not None and getattr(traffic, name) not in rows]
    # Rows in mxfp4 are of devices that store weights alone in it; those in fp8 of devices that multiply it.
    if "precision" not in names and traffic.precision != "mxfp4" and products is None:
        names += ["precision"] * (not hardware.multiplies(traffic.precision))
    names += ["engine"] * bool(_other_engine(hardware, traffic)) + ["shares"] * (calibration.id == STATED)
    names += ["gpus"] * (gpus > min(hardware.node, calibration.most_gpus or hardware.node))
    return traffic.uncalibrated + names


def calibration_of(hardware: Hardware, traffic: Traffic, gpus: int = 1) -> Calibration:
    """The calibration of a replica of `gpus` devices, with the error and the interval of what it has no rows of."""
    names = not_calibrated(hardware, traffic, gpus)
    if gpus > hardware.node:
        names = ["nodes" if name == "gpus" else name for name in names]
    return doubted(hardware.calibrated(traffic.engine), tuple(names))


def without_rows(hardware: Hardware, traffic: Traffic) -> list[str]:
    """The lines for people that `not_calibrated` names."""
    lines, calibration, names = [], hardware.calibrated(traffic.engine), not_calibrated(hardware, traffic)
    products = calibration.products
    if traffic.uncalibrated:
        lines.append(f"not calibrated: no measured rows support {', '.join(traffic.uncalibrated)}")
    if "precision" in names and traffic.precision not in (calibration.precisions or ()) and products is None:
        rows = ", ".join(calibration.precisions or ())
        lines.append(f"not calibrated: no measured rows in {traffic.precision} (they are in {rows})")
    if "kv_precision" in names:
        rows = ", ".join(calibration.kv_precisions or ())
        lines.append(f"not calibrated: no measured rows with a KV cache in {traffic.kv_precision} (theirs: {rows})")
    return lines + _few_rows(calibration) + _other_engine(hardware, traffic)


def _few_rows(calibration: Calibration) -> list[str]:
    """A line where there are rows, and too few of them, or of too few models, to state an error."""
    if calibration.few is None:
        return []
    rows = f"{calibration.n_rows} row{'s' * (calibration.n_rows > 1)}, {calibration.few}"
    return [f"not calibrated: {calibration.id} has {rows}; error and interval are those of what has no rows"]


def _other_engine(hardware: Hardware, traffic: Traffic) -> list[str]:
    """A line where an engine is asked for, and the device's file holds one calibration, of another."""
    found = hardware.calibrated(traffic.engine).id
    ours = hardware.calibration is None and found != STATED
    if traffic.engine is None or ours or found.partition("/")[2] == traffic.engine:
        return []
    return [
        f"not calibrated: no measured rows of {traffic.engine}; the calibration of the hardware file is {found}, "
        "and engine changes nothing beside it"
    ]


def borrowed(hardware: Hardware) -> list[str]:
    """A line where the calibration is that of another maker's device, and of an engine that does not run here."""
    own = hardware.calibration is not None or hardware.calibrated().id == STATED
    like = None if own else catalogue().get(hardware.like or "")
    if like is None or like.name.split()[0] == hardware.name.split()[0]:
        return []
    return [f"not calibrated: no measured serving of {hardware.name}; its share of peak is that of {like.name}"]


def weights_alone(model: ModelConfig, hardware: Hardware, traffic: Traffic) -> list[str]:
    """A line where the device's matrix units do not multiply the format of the weights: they are stored in it alone.
    None for int4, which is so on every device, and for mxfp4 without experts, the matrices that it stores."""
    precision = traffic.precision
    if hardware.multiplies(precision) or precision == "int4" or (precision == "mxfp4" and model.moe is None):
        return []
    return [f"{precision} is weight-only on {hardware.name}: weights are read in {precision} and multiplied in bf16"]


def uneven_heads(model: ModelConfig, cost: dict[str, Any]) -> list[str]:
    """A line where engines do not split the heads over the devices of `serve_one`'s answer: vLLM needs whole
    query heads, and whole KV heads or whole copies of them, on every device."""
    gpus, heads, kv_heads = cost["gpus"], model.n_heads, 1 if model.mla is not None else model.n_kv_heads
    if cost["parallel"] != "tensor" or (heads % gpus == 0 and (kv_heads % gpus == 0 or gpus % kv_heads == 0)):
        return []
    return [
        f"tensor parallel over {gpus:,} devices does not divide {heads} heads, {kv_heads} of KV: engines such as "
        "vLLM refuse it; the busiest device is priced"
    ]
