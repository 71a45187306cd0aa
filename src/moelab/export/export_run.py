"""A trained run in another engine's format, in one call."""

from pathlib import Path

from moelab.errors import InputError
from moelab.export.gguf_file import export_gguf
from moelab.export.huggingface import Exported, export_hugging_face
from moelab.export.source import open_source
from moelab.training.open import open_run

FORMATS = ("hf", "gguf")
EXPORTS = Path("exports")
"""Where exports go that are given no place."""


def export_run(
    run: str | Path,
    to: str = "hf",
    out: str | Path | None = None,
    *,
    dtype: str = "fp32",
    check: bool = True,
    force: bool = False,
    data: str | Path | None = None,
) -> Exported:
    """Write a trained model in another engine's format, with its tokenizer and a model card, and compare the two.

    Args:
        run: A finished run: its folder, the start of its id, or its name.
        to: "hf" (a folder for transformers) or "gguf" (a file for llama.cpp).
        out: The folder or the .gguf file; None: exports/RUN_ID-hf or exports/RUN_ID-DTYPE.gguf.
        dtype: Of the weights: fp32, bf16 or f16; routers stay in fp32.
        check: Compare the logits of both models on held-out text.
        force: Replace an earlier export; nothing else is ever replaced.
        data: The prepared data, if it moved since training.

    Returns:
        An Exported: `path`, `architecture`, `dtype`, `bytes`, the `check` (differences of logits) and `notes`.

    Raises:
        InputError: An unknown format, dtype or run, a model that no class of the format represents, a place that holds
            something else.
        MoelabError: A check that failed, a file that cannot be written.

    After the example of `moelab.train`:

    >>> import moelab
    >>> done = moelab.export_run("tiny", to="hf", out="exports/tiny")
    >>> done.architecture, sorted(path.name for path in done.path.iterdir())[:2]
    ('Qwen3MoeForCausalLM', ['README.md', 'config.json'])
    """
    if to not in FORMATS:
        raise InputError(f"to: expected hf or gguf, got {to!r}")
    source = open_source(*open_run(run, data))
    default = f"{source.run_id}-hf" if to == "hf" else f"{source.run_id}-{dtype}.gguf"
    write = export_hugging_face if to == "hf" else export_gguf
    return write(source, Path(out) if out is not None else EXPORTS / default, dtype=dtype, force=force, check=check)
