"""What a model is worth: validation loss in nats per token and bits per byte."""

from moelab.evaluation.loss import Evaluation, evaluate, validation_batches

__all__ = ["Evaluation", "evaluate", "validation_batches"]
