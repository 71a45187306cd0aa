"""`moelab export`: a trained run for transformers or llama.cpp, compared with the trained model."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    run: Annotated[Path, typer.Argument(help="A finished run: folder, start of its id, or name.", show_default=False)],
    to: Annotated[str, typer.Option(help="`hf` (a folder for transformers) or `gguf` (a file for llama.cpp).")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder or .gguf file.", show_default="exports/RUN_ID-hf or exports/RUN_ID-DTYPE.gguf"),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights: fp32, bf16 or f16; routers stay in fp32.")] = "fp32",
    check: Annotated[bool, typer.Option("--check/--no-check", help="Compare logits on held-out text.")] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export (never anything else).")] = False,
    data: Annotated[Path | None, typer.Option(help="Prepared data, if it moved since training.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Write a trained model in another engine's format.

    The tokenizer goes with it, and the two models are compared.

    Example: moelab export runs/3f2a... --to hf --out my-model
    """
    from moelab.cli.output import print_json, print_line
    from moelab.export.card import check_text
    from moelab.export.export_run import export_run

    done = export_run(run, to, out, dtype=dtype, check=check, force=force, data=data)
    if as_json:
        print_json(done.to_dict())
        return
    print_line(f"{done.architecture}, {done.bytes:,} bytes in {done.dtype}")
    for note in done.notes:
        print_line(note)
    print_line(check_text(done.check, done.unchecked, done.dtype))
    print_line(str(done.path))
