"""`moelab data`: turn text into tokens, and look at what was prepared."""

import time
from typing import Annotated, Any

import typer

from moelab.cli.help import Command, Group
from moelab.cli.shares import read_share

app = typer.Typer(
    name="data",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Prepare text for training, and look at it.",
)


@app.command("prepare", cls=Command)
def prepare_command(
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="default, wheels, a folder, a .txt/.jsonl/.json/.parquet file, or hf:NAME; repeat to mix.",
            show_default="default",
        ),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Name of a source, once for each --source.", show_default="the file's")
    ] = None,
    vocab_size: Annotated[
        str | None, typer.Option(help="Tokens in the trained tokenizer, at least 257.", show_default="4096")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="A byte-level tokenizer.json or tiktoken rank file to use instead.")
    ] = None,
    end_of_text: Annotated[
        str | None, typer.Option(help="Token of --tokenizer that ends a document, where it has a name of its own.")
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help="How a rank file splits text: gpt2, cl100k, o200k or a regular expression.",
            show_default="by the vocabulary's size",
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder to write.", show_default="data/SOURCE-VOCABULARY")] = None,
    max_tokens: Annotated[
        str | None, typer.Option(help="Most training tokens, such as 8M; the mixture stays the same.")
    ] = None,
    validation_share: Annotated[
        float, typer.Option(parser=read_share, help="Share of each source held out, by document.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the held-out documents and the order.")] = 0,
    text_field: Annotated[
        str, typer.Option("--text-field", "--text-column", help="Field or column that holds the text.")
    ] = "text",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out and count rows that cannot be used.")] = False,
    allow_lossy: Annotated[
        bool, typer.Option("--allow-lossy", help="Take a --tokenizer that changes the text; recorded.")
    ] = False,
    cache: Annotated[str | None, typer.Option(help="Folder for downloaded archives.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace data prepared otherwise.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Text -> tokenizer -> token files with a manifest. The same call again reuses the folder.

    Example: moelab data prepare --source wheels --vocab-size 512 --max-tokens 8M --out data/quickstart
    """
    from contextlib import nullcontext
    from pathlib import Path

    from moelab.cli.output import print_json, print_line
    from moelab.data import PrepareConfig
    from moelab.data.prepare import OtherData, prepare
    from moelab.data.progress import no_report, rich_report
    from moelab.errors import InputError

    if tokenizer is not None and vocab_size is not None:
        raise InputError("--vocab-size: a given tokenizer has its own; leave out one of --vocab-size and --tokenizer")
    fields: dict[str, Any] = {
        "sources": source or ["default"],
        "vocab_size": vocab_size,
        "tokenizer": tokenizer,
        "max_tokens": max_tokens,
        "seed": seed,
        "validation_share": validation_share,
        "text_field": text_field,
        "names": name,
        "end_of_text": end_of_text,
        "pattern": pattern,
        "skip_bad": skip_bad,
        "allow_lossy": allow_lossy,
    }
    config = PrepareConfig.parse({key: value for key, value in fields.items() if value is not None})
    folder = out or _default_folder(config.sources[0], tokenizer, config.vocab_size)
    began = time.perf_counter()
    options: dict[str, Any] = {"cache": Path(cache) if cache else None, "force": force}
    try:
        with nullcontext(no_report) if as_json else rich_report() as report:
            result = prepare(config, folder, report=report, **options)
    except OtherData as error:
        raise InputError(f"{error}, or --force to replace it") from None
    seconds = time.perf_counter() - began
    if as_json:
        print_json({**_summary(result.dataset), "reused": result.reused, "seconds": seconds})
        return
    _print(result.dataset)
    print_line(f"{'Reused' if result.reused else 'Prepared'} {result.dataset.folder} in {seconds:.1f} s")


@app.command("show", cls=Command)
def show_command(
    folder: Annotated[str, typer.Argument(help="A prepared folder.")],
    verify: Annotated[bool, typer.Option("--verify", help="Check the hash of every file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Sources, sizes and licences of a prepared folder.

    Example: moelab data show data/quickstart --verify
    """
    from moelab.cli.output import print_json, print_line
    from moelab.data import Dataset

    dataset = Dataset.open(folder, verify=verify)
    if as_json:
        print_json({**_summary(dataset), "verified": verify})
        return
    _print(dataset)
    if verify:
        print_line("Every file has the hash in the manifest.")


@app.command("verify")
def verify_command(
    folder: Annotated[str, typer.Argument(help="A prepared folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Check the files and token ids of a prepared folder.

    Hashes every file and looks for token ids beyond the vocabulary. Training checks by itself, once for each change of
    the files; this command always checks.

    Example: moelab data verify data/quickstart
    """
    from moelab.cli.output import print_json, print_line
    from moelab.data import Dataset

    dataset = Dataset.open(folder, verify=True)
    if as_json:
        print_json({**_summary(dataset), "verified": True})
        return
    print_line(f"{dataset.folder}: every file has the hash in the manifest, every token id is within the vocabulary.")


def _default_folder(source: str, tokenizer: str | None, vocab_size: int) -> str:
    from pathlib import Path

    words = source.removeprefix("hf:").replace("/", "-") if source.startswith("hf:") else Path(source).stem
    kind = Path(tokenizer).stem if tokenizer else str(vocab_size)
    return f"data/{words or 'text'}-{kind}"


def _summary(dataset: Any) -> dict[str, Any]:
    manifest = dataset.manifest
    files = [dataset.folder / shard.file for shard in manifest.shards] + [dataset.tokenizer_path]
    return {
        "folder": str(dataset.folder),
        "manifest_hash": manifest.manifest_hash,
        "vocab_size": manifest.vocab_size,
        "tokens": manifest.total("train").tokens,
        "validation_tokens": manifest.total("validation").tokens,
        "bytes_per_token": manifest.bytes_per_token,
        "duplicates_dropped": manifest.duplicates_dropped,
        "bytes_on_disk": sum(path.stat().st_size for path in files),
        "sources": [source.to_dict() for source in manifest.sources],
        "lossy": None if manifest.lossy is None else manifest.lossy.to_dict(),
    }


def _print(dataset: Any) -> None:
    from moelab.cli.output import print_line, print_table
    from moelab.quantities import format_bytes, format_number

    manifest = dataset.manifest
    left_out: list[str] = []
    columns = ("source", "tokens", "text", "held out", "licence of the text")
    rows = [
        (
            source.name,
            format_number(source.train.tokens),
            format_bytes(source.train.bytes),
            format_number(source.validation.tokens),
            source.licence,
        )
        for source in manifest.sources
    ]
    for source in manifest.sources:
        for count, what in ((source.files_left_out, "files"), (source.rows_left_out, "bad rows")):
            if count:
                left_out.append(f"{source.name}: {count:,} {what} left out")
    whole = manifest.total("train")
    held = format_number(manifest.total("validation").tokens)
    rows.append(("all", format_number(whole.tokens), format_bytes(whole.bytes), held, ""))
    print_table(columns, rows)
    print_line(
        f"{whole.documents:,} documents, vocabulary {manifest.vocab_size:,}, {manifest.bytes_per_token:.2f} bytes per "
        f"token, {format_bytes(_summary(dataset)['bytes_on_disk'])} on disk, manifest {manifest.manifest_hash[:12]}"
    )
    for line in left_out:
        print_line(line)
    for note in dataset.notes():
        print_line(f"Warning: {note}")
