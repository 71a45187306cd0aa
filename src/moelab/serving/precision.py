"""How weights are stored and in what arithmetic they are multiplied, by precision.

4-bit block formats keep a scale beside their numbers: 8 bits for 32 of them in mxfp4 (OCP Microscaling Formats 1.0),
8 bits for 16 in nvfp4. mxfp4 stores routed experts alone, the rest in 16 bits, as gpt-oss does (arXiv 2508.10925);
nvfp4 stores every matrix. int4 is weight-only.
"""

from dataclasses import dataclass

from moelab.architecture.memory import bytes_of_weight
from moelab.serving.hardware import Hardware


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes of one weight and peak FLOPs per second, of routed experts and of everything else."""

    expert_bytes: float
    other_bytes: float
    expert_rate: float
    other_rate: float


def stored(precision: str, hardware: Hardware) -> Stored:
    """Bytes and rates of a precision on a device. Raises InputError for an unknown precision."""
    (expert, other), rate = bytes_of_weight(precision), hardware.peak(precision)
    return Stored(expert, other, rate, hardware.bf16 if precision == "mxfp4" else rate)
