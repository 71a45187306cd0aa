"""A trained run for other engines: Hugging Face folders and GGUF files, compared with the trained model."""

from moelab.export.families import FAMILIES, choose_family
from moelab.export.gguf_file import export_gguf
from moelab.export.huggingface import Exported, export_hugging_face
from moelab.export.source import Source, open_source

__all__ = ["FAMILIES", "Exported", "Source", "choose_family", "export_gguf", "export_hugging_face", "open_source"]
