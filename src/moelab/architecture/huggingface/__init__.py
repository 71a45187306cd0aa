"""Hugging Face configs read as architectures: config.json of the classes in `families`, and headers of GGUF files."""

from moelab.architecture.huggingface.families import FAMILIES
from moelab.architecture.huggingface.gguf import read_gguf
from moelab.architecture.huggingface.read import is_huggingface, read_huggingface

__all__ = ["FAMILIES", "is_huggingface", "read_gguf", "read_huggingface"]
