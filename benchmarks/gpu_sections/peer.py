"""Tokens per second of the same step with transformers."""

from gpu_sections.common import Bench
from gpu_sections.step import peers


def run(bench: Bench, kind: str) -> None:
    """The peer of one compared shape."""
    peers(bench, kind)
