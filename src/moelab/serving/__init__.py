"""What a model costs to serve: hardware catalogue, calibrated times, KV cache, batch, devices, price. No torch."""

from moelab.serving.calibration import Calibration
from moelab.serving.coefficients import Coefficients
from moelab.serving.cost import serve, serve_one
from moelab.serving.curve import batch_curve
from moelab.serving.hardware import Hardware, catalogue, load_hardware
from moelab.serving.serving_columns import INTERVALS, ServingCost
from moelab.serving.traffic import Traffic

__all__ = [
    "INTERVALS",
    "Calibration",
    "Coefficients",
    "Hardware",
    "ServingCost",
    "Traffic",
    "batch_curve",
    "catalogue",
    "load_hardware",
    "serve",
    "serve_one",
]
