"""What a model is worth: validation loss in nats per token and bits per byte."""

from moelab.evaluation.loss import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
