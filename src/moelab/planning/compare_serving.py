"""How the designs of a comparison are served: the devices and traffic asked for, and what each of them costs."""

from collections.abc import Sequence
from typing import Any

from moelab.errors import InputError
from moelab.planning.baselines import Part
from moelab.planning.budget import Serving
from moelab.serving import serve_one
from moelab.serving.doubts import without_effect
from moelab.serving.limit_kept import limit_kept


def wanted_serving(
    hardware: str | None, gpu_price: float | str | None, traffic: dict[str, Any], precision: str, kv_precision: str
) -> Serving | None:
    """The devices and the traffic; None without devices, for which options of serving are refused."""
    if hardware is None:
        for name, value in {**traffic, "gpu_price": gpu_price}.items():
            if value is not None:
                raise InputError(f"{name}: needs hardware, the devices that serve")
        return None
    traffic |= {"precision": precision, "kv_precision": kv_precision}
    return Serving.parse({"hardware": hardware, "gpu_price": gpu_price, "traffic": traffic}, "compare")


def served_sides(parts: Sequence[tuple[str, Part]], serving: Serving) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What each design costs to serve, and lines on those that cannot be, or for which an option has no effect."""
    served: dict[str, dict[str, Any]] = {}
    lines, first = [], None
    for name, (model, _, _) in parts:
        try:
            served[name] = serve_one(model, serving.traffic, serving.device, serving.price)
        except InputError as error:
            first = first or error
            lines.append(f"{name}: not served within the limits: {error}")
            continue
        found = without_effect(model, served[name], serving.traffic)
        found += limit_kept(model, served[name], serving.traffic, serving.device, serving.price)
        lines += [f"{name}: {line}" for line in found]
    if first is not None and not served:
        raise first
    return served, lines
