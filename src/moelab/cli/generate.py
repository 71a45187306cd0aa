"""`moelab generate`: continue a prompt with a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from moelab.cli.shares import read_share


def command(
    run: Annotated[Path, typer.Argument(help="A finished run: folder, start of its id, or name.", show_default=False)],
    prompt: Annotated[
        list[str] | None,
        typer.Option(help='Text to continue; may be given several times. "" begins a document.', show_default=False),
    ] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="The prompts are the beginnings of documents; without any, write one.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to add.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Keep only the K likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(parser=read_share, help="Keep the likeliest tokens up to this probability.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    mixing: Annotated[
        bool, typer.Option("--mixing", help="Let routers that work on groups mix the prompts, as in training.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Prepared data, if it moved since training.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Continue one or more prompts with a trained model, or write a document from its start.

    Documents begin after the token that ends the one before; without --from-start a prompt stands anywhere in a text.

    Example: moelab generate runs/3f2a... --prompt "Fellow citizens" --max-new-tokens 50
    """
    import sys
    import time

    from moelab.cli.output import print_json
    from moelab.data.tokenizer import encode
    from moelab.errors import InputError
    from moelab.model.generate import generate
    from moelab.model.moe import decodes_as_trained
    from moelab.printable import printable
    from moelab.training.open import open_run

    prompt = prompt or ([""] if from_start else [])
    if not prompt:
        raise InputError("--prompt: is required, or --from-start")
    if any("\ud800" <= letter <= "\udfff" for text in prompt for letter in text):
        raise InputError("--prompt: is not UTF-8 text")
    _, _, model, dataset = open_run(run, data)
    tokenizer = dataset.load_tokenizer()
    end = dataset.manifest.end_of_text
    prompts = [
        [end, *ids] if from_start or not text else list(ids)
        for text, ids in zip(prompt, encode(tokenizer, prompt), strict=True)
    ]
    started = time.monotonic()
    new = generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        eos=end,
        mixing=mixing,
        use_cache=not mixing or decodes_as_trained(model.config),
    )
    seconds = time.monotonic() - started
    texts = [tokenizer.decode(ids) for ids in new]
    if as_json:
        rows = [
            {"prompt": text, "continuation": more, "tokens": len(ids)}
            for text, more, ids in zip(prompt, texts, new, strict=True)
        ]
        print_json({"texts": rows, "seconds": seconds, "seed": seed, "temperature": temperature})
        return
    for text, more in zip(prompt, texts, strict=True):
        # A terminal obeys what a file keeps: there, control characters are shown.
        print(printable(text + more, keep="\n\t") if sys.stdout.isatty() else text + more)
