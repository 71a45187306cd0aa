"""Models for other engines: a trained run as a Hugging Face folder or a GGUF file, and the files that train a plan.

The names below load their module when first used, so the files of a plan need no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from moelab.export.families import FAMILIES as FAMILIES
from moelab.export.families import choose_family as choose_family

if TYPE_CHECKING:
    from moelab.export.gguf_file import export_gguf as export_gguf
    from moelab.export.huggingface import Exported as Exported
    from moelab.export.huggingface import export_hugging_face as export_hugging_face
    from moelab.export.source import Source as Source
    from moelab.export.source import open_source as open_source

_MODULES = {
    "export_gguf": "gguf_file", "Exported": "huggingface", "export_hugging_face": "huggingface",
    "Source": "source", "open_source": "source",
}  # fmt: skip

__all__ = ["FAMILIES", "Exported", "Source", "choose_family", "export_gguf", "export_hugging_face", "open_source"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
