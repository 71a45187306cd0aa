"""A plan as people ask for it: the options of `moelab plan` by name, from a command line, a page or a script."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moelab.config import load_yaml
from moelab.errors import InputError
from moelab.planning.budget import Budget
from moelab.planning.chosen_laws import laws_of, rules_of
from moelab.planning.near import near_space
from moelab.planning.plan import plan
from moelab.planning.result import Plan
from moelab.planning.space import Space
from moelab.serving.hardware import catalogue_name

MOST_CANDIDATES = 1000
_BUDGET = (
    "flops", "gpus", "days", "train_hardware", "train_gpu_price", "train_precision",
    "max_params", "max_active", "max_memory", "kv_precision", "context",
    "max_tokens", "unique_tokens", "max_epochs", "min_tokens_per_active", "max_tokens_per_active",
    "min_tokens_per_total", "objective", "within", "target_loss", "target_experts",
)  # fmt: skip
_SERVED = (
    "tpot", "ttft", "max_price", "price_like_experts", "prompt", "output", "serve_gpus", "gpu_price",
)  # fmt: skip


@dataclass(frozen=True)
class PlanRequest:
    """What `moelab.plan` takes, checked: the budget, the laws, the space and how much to show."""

    budget: Budget
    laws: list[Any]
    space: Space | None
    top: int
    extrapolate: bool

    def plan(self) -> Plan:
        """The plan. Raises InputError where nothing fits."""
        return plan(self.budget, self.laws, self.space, top=self.top, extrapolate=self.extrapolate)


def plan_request(options: Mapping[str, Any]) -> PlanRequest:
    """From options by name (`max_params`, not `--max-params`; those absent or None are not given) to a request.

    Raises InputError, in one line that begins with the option, where options contradict each other or a value is wrong.
    """
    given = {name: value for name, value in options.items() if value is not None}
    given |= {name: catalogue_name(given[name]) for name in ("hardware", "train_hardware") if name in given}
    _check(given)
    law = given.get("law") or None
    top = given.get("top", 10)
    if not 1 <= top <= MOST_CANDIDATES:
        raise InputError(f"--top: must be 1 to {MOST_CANDIDATES}, got {top}")
    budget = Budget.parse(_budget(given), "plan")
    laws = [*laws_of(law), *rules_of(law)]
    return PlanRequest(budget, laws, requested_space(given), top, bool(given.get("extrapolate")))


def _check(given: Mapping[str, Any]) -> None:
    paid = bool(given.get("pay_serving"))
    if "hardware" not in given:
        for name in _SERVED:
            if name in given:
                hint = "; of those that train: --train-gpu-price" if name == "gpu_price" else ""
                raise InputError(f"--{name.replace('_', '-')}: needs --hardware, the devices that serve{hint}")
        if "serve_tokens" in given and not paid:
            raise InputError(
                "--serve-tokens: needs --hardware to price them, or --pay-serving to take them from --flops"
            )
        if "train_gpu_price" in given and "train_hardware" not in given:
            raise InputError("--train-gpu-price: needs --train-hardware, the devices that train")
        if "mfu" in given and "train_hardware" not in given:
            raise InputError("--mfu: needs --train-hardware, whose time it turns into compute and dollars")
    if "train_precision" in given and not {"train_hardware", "hardware"} & given.keys():
        raise InputError("--train-precision: needs --train-hardware, the devices whose speed it sets")
    if "mfu" not in given and "mfu_convention" in given:
        raise InputError("--mfu-convention: needs --mfu")
    if "context" in given and "max_memory" not in given:
        raise InputError("--context: needs --max-memory, whose KV cache it sets; --seq-len sets the context of FLOPs")
    if paid and "serve_tokens" not in given:
        raise InputError("--pay-serving: needs --serve-tokens")


def _budget(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Budget."""
    fields: dict[str, Any] = {name: given.get(name) for name in _BUDGET}
    precision = given.get("precision", "bf16")
    fields |= {
        "precision": precision,
        "mfu": _mfu(given.get("mfu")),
        "mfu_convention": given.get("mfu_convention", "causal"),
        "serve_flops_tokens": given["serve_tokens"] if given.get("pay_serving") else 0,
        "serving": None,
    }
    if "hardware" in given:
        traffic = {name: given.get(name) for name in ("tpot", "ttft")} | {
            "prompt": given.get("prompt", "1024"), "output": given.get("output", "256"),
            "gpus": given.get("serve_gpus"), "precision": precision,
            "kv_precision": given.get("kv_precision", "bf16"),
        }  # fmt: skip
        names = ("hardware", "gpu_price", "max_price", "price_like_experts")
        fields["serving"] = {name: given.get(name) for name in names} | {
            "tokens": given.get("serve_tokens"),
            "traffic": traffic,
        }
    return fields


def _mfu(value: Any) -> Any:
    """A share, or the table in a YAML file."""
    return load_yaml(value, "mfu") if isinstance(value, str) and Path(value).suffix in (".yaml", ".yml") else value


def requested_space(given: Mapping[str, Any]) -> Space | None:
    """The space of `--space` or `--near` with `--kinds` and `--seq-len`; None: the default space as it is."""
    if "near" in given and "space" in given:
        raise InputError("--near: contradicts --space; give one of them")
    space = near_space(given["near"]) if "near" in given else None
    if "space" in given:
        space = Space.from_yaml(given["space"], "space")
    changed = {}
    if "seq_len" in given:
        changed["seq_len"] = given["seq_len"]
    if "kinds" in given:
        changed["kinds"] = [kind.strip() for kind in str(given["kinds"]).split(",")]
    return (space or Space()).replace(**changed) if changed else space
