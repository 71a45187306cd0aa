"""The limits of a budget by name, and the same budget with one of them wider."""

from moelab.planning.budget import Budget

LIMITS = {
    "compute": "flops",
    "data": "unique_tokens",
    "tokens": "max_tokens",
    "params": "max_params",
    "active": "max_active",
    "memory": "max_memory",
    "tokens_per_active": "min_tokens_per_active",
    "most_tokens_per_active": "max_tokens_per_active",
    "tokens_per_total": "min_tokens_per_total",
}
"""The name of a limit in `binding`, and the budget's field that sets it; `serving` stands for tpot, ttft, price."""

LEAST = ("tokens_per_active", "tokens_per_total")
"""Limits from below, of which less is the wider limit."""


def wider(budget: Budget, limit: str, factor: float) -> Budget:
    """The same budget with one limit wider by `factor`: multiplied by it, or divided where it limits from below."""
    if limit == "serving_memory":
        assert budget.serving is not None
        device = budget.serving.device
        larger = device.model_copy(update={"memory": device.memory * factor})
        # `device` is a cached property: its value in the copy stands for the hardware of that name.
        return budget.model_copy(update={"serving": budget.serving.model_copy(update={"device": larger})})
    if limit == "serving":
        assert budget.serving is not None
        traffic, scaled = budget.serving.traffic, {}
        for name in ("tpot", "ttft"):
            value = getattr(traffic, name)
            if value is not None:
                scaled[name] = value * factor
        price = budget.serving.max_price
        serving = budget.serving.model_copy(
            update={
                "traffic": traffic.model_copy(update=scaled),
                "max_price": None if price is None else price * factor,
            }
        )
        return budget.model_copy(update={"serving": serving})
    factor = 1 / factor if limit in LEAST else factor
    field = "days" if limit == "compute" and budget.flops is None else LIMITS[limit]
    return budget.model_copy(update={field: getattr(budget, field) * factor})
