"""What a visitor can set: the options of `moelab plan` that are plain values, in groups, with their labels."""

from dataclasses import dataclass
from functools import cache

from moelab.architecture.presets import PRESETS
from moelab.planning.chosen_laws import ALL, published_laws
from moelab.serving.hardware import catalogue


@dataclass(frozen=True)
class Control:
    """One field: the option's name, its label, an example, and the values it is limited to (none: free text).

    `empty` names what an empty field stands for, where that is no limit.
    """

    name: str
    label: str
    example: str = ""
    choices: tuple[str, ...] = ()
    several: bool = False
    note: str = ""
    wide: bool = False
    empty: str = ""


@dataclass(frozen=True)
class Group:
    """Fields that belong together; those that are rarely needed fold away until one of them is set."""

    title: str
    controls: tuple[Control, ...]
    folded: bool = False


LAWS_NOTE = "With none ticked, all laws predict the designs within their ranges. To leave one out, tick the others."
PRECISIONS = ("bf16", "fp8", "int8", "int4", "mxfp4", "nvfp4")


@cache
def groups() -> tuple[Group, ...]:
    """All fields of the page, in the order in which people decide them."""
    devices = tuple(catalogue())
    return (
        Group(
            "Compute",
            (
                Control("flops", "Training FLOPs", "1e21", wide=True, note="or devices and days:"),
                Control("gpus", "Devices", "512"),
                Control("days", "Days", "30"),
                Control("train-hardware", "Device that trains", choices=devices),
                Control("train-gpu-price", "$ per training device and hour", "2.5", empty="published"),
                Control("train-precision", "Arithmetic of training", choices=("bf16", "fp8", "mxfp8", "nvfp4")),
                Control("mfu", "MFU, of the bf16 peak", "0.4", empty="predicted"),
            ),
        ),
        Group(
            "Limits",
            (
                Control("max-params", "Parameters", "10B"),
                Control("max-active", "Active parameters", "2B"),
                Control("max-memory", "Memory of weights and KV cache", "80GB"),
                Control("unique-tokens", "Unique tokens", "300B"),
                Control("max-epochs", "Epochs", "4"),
                Control("max-tokens", "Training tokens", "1T"),
            ),
        ),
        Group(
            "Serving",
            (
                Control("hardware", "Device that serves", choices=devices),
                Control("precision", "Precision of the weights", choices=PRECISIONS),
                Control("kv-precision", "Precision of the KV cache", choices=("bf16", "fp8", "int4")),
                Control("serve-tokens", "Tokens served over its life", "1e13"),
                Control("tpot", "Time per output token", "50ms"),
                Control("ttft", "Time to the first token", "1s"),
                Control("prompt", "Tokens of a prompt", "1024"),
                Control("output", "Tokens of an answer", "256"),
                Control("serve-gpus", "Devices of one replica", "8"),
                Control("gpu-price", "$ per device and hour", "2.5", empty="published"),
                Control("max-price", "$ per million tokens, at most", "0.5"),
                Control("objective", "Objective", choices=("loss", "balance")),
                Control("within", "Excess compute that balance may give", "0.1"),
            ),
        ),
        Group(
            "Architectures",
            (
                Control("kinds", "Kinds", choices=("moe,dense", "moe", "dense")),
                Control("near", "Near this model", choices=tuple(PRESETS)),
                Control("seq-len", "Context, tokens", "4096"),
            ),
            folded=True,
        ),
        Group(
            "Laws",
            (
                Control(
                    "law", "Laws", choices=(ALL, *(law.id for law in published_laws())), several=True, note=LAWS_NOTE
                ),
                Control("extrapolate", "Beyond their ranges", choices=("yes",)),
            ),
            folded=True,
        ),
    )


@cache
def controls() -> dict[str, Control]:
    """Every field by its name."""
    return {control.name: control for group in groups() for control in group.controls}
