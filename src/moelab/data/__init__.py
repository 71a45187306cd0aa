"""Text to tokens to batches: prepare a corpus once, then draw batches that depend on seed and step alone."""

from moelab.data.batches import TrainBatches, ValidationBatch, ValidationBatches
from moelab.data.bpe import train_tokenizer
from moelab.data.config import PrepareConfig
from moelab.data.dataset import Dataset, Manifest
from moelab.data.prepare import Prepared
from moelab.data.tokenizer import load_tokenizer

__all__ = [
    "Dataset",
    "Manifest",
    "PrepareConfig",
    "Prepared",
    "TrainBatches",
    "ValidationBatch",
    "ValidationBatches",
    "load_tokenizer",
    "train_tokenizer",
]
