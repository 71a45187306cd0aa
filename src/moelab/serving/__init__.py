"""What a model costs to serve: hardware catalogue, rooflines, KV cache, batch, devices, price. No torch."""

from moelab.serving.cost import ServingCost, serve, serve_one
from moelab.serving.curve import batch_curve
from moelab.serving.hardware import Hardware, catalogue, load_hardware
from moelab.serving.traffic import Traffic

__all__ = ["Hardware", "ServingCost", "Traffic", "batch_curve", "catalogue", "load_hardware", "serve", "serve_one"]
