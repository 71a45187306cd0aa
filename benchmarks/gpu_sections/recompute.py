"""A training step whose backward pass computes activations again: tokens per second and the peak of memory."""

from gpu_sections.common import Bench, model_config
from gpu_sections.step import ours, report, rows
from moelab.model.decoder import DecoderLayer


def run(bench: Bench) -> None:
    """Dense and MoE, uncompiled: nothing, all but products and routes, all but routes."""
    for kind in ("moe", "dense"):
        config = model_config(kind, bench.dry)
        for how in (None, "selective", "full"):
            with bench.guarded("recompute", model=kind, how=how or "none"):
                DecoderLayer.recompute = how
                try:
                    step = ours(bench, config, rows(bench), compiled=False)
                    report(bench, kind, "moelab", f"recompute {how or 'none'}", config, step, rows(bench))
                    del step
                finally:
                    DecoderLayer.recompute = None
