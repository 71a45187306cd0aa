"""The form of the command line: grouped help in one style, widths, completion, suggestions, what a wrong word gets."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import typer

import moelab
from moelab.cli import COMMANDS, main
from moelab.cli import root as entry
from moelab.cli.panels import OTHERS, PANELS, panel_of

EVERY = [(name,) for name in COMMANDS] + [("data", "prepare"), ("data", "show")]
COMMON = {"help"}


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(words)
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("words", [(), *EVERY], ids=" ".join)
def test_help_of_every_command_has_one_style(
    words: tuple[str, ...], flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = answer(capsys, *words, flag)
    assert code == 0
    assert out.startswith(f"Usage: {' '.join(('moelab', *words))} ")
    assert "-h, --help" in out
    assert not set(out) & set("─│╭╮╰╯"), "boxes"
    assert max(len(line) for line in out.splitlines()) <= 80
    headings = [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert set(headings) <= {"Arguments", *PANELS, OTHERS, "Commands"}


def test_the_groups_of_plan_and_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = answer(capsys, "plan", "-h")
    order = [out.index(f"\n{name}:\n") for name in ("Budget", "Laws", "Serving", "Output", "Options")]
    assert order == sorted(order)
    assert out.index("--flops") < out.index("\nLaws:") < out.index("--law ") < out.index("\nServing:")
    assert "[default: 10]" in " ".join(out.split())


def test_every_option_stands_in_a_named_group() -> None:
    root = typer.main.get_command(entry)
    context = root.make_context("moelab", ["count", "x"])  # type: ignore[attr-defined]
    for name in COMMANDS:
        command = root.get_command(context, name)  # type: ignore[attr-defined]
        for each in getattr(command, "commands", {name: command}).values():
            options = [param for param in each.params if param.param_type_name == "option" and param.name not in COMMON]
            if name != "count":
                assert not [p.name for p in options if panel_of(each.name, p.name) == OTHERS], name


@pytest.mark.parametrize(("columns", "widest"), [("60", 60), ("140", 140)])
def test_help_and_tables_are_as_wide_as_columns(
    columns: str, widest: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in (("plan", "-h"), ("laws",)):
        longest = max(len(line) for line in answer(capsys, *words)[1].splitlines())
        assert 0.7 * widest < longest <= widest


def test_a_pipe_without_columns_does_not_wrap_tables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert max(len(line) for line in answer(capsys, "laws")[1].splitlines()) > 120


def test_version_and_completion_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = answer(capsys, "-h")
    for option in ("--version", "--debug", "--install-completion", "--show-completion"):
        assert option in out
    assert answer(capsys, "--version")[:2] == (0, f"{moelab.__version__}\n")


def test_commands_and_options_complete(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MOELAB_COMPLETE", "complete_bash")
    for typed, number, wanted in (("moelab pl", "1", "plan"), ("moelab plan --max-p", "2", "--max-params")):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", number)
        code, out, _ = answer(capsys)
        assert (code, out.split()[0]) == (0, wanted)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("plam",), "No such command 'plam'; did you mean 'plan'?"),
        (("data", "pepare"), "No such command 'pepare'; did you mean 'prepare'?"),
        (("zzz",), "No such command 'zzz'; known: count, presets, data"),
        (("plan", "--flop", "1"), "No such option: --flop; did you mean --flops?"),
    ],
)
def test_what_is_near_is_suggested(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = answer(capsys, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_help_of_a_command_imports_typer_alone() -> None:
    code = (
        "import sys; from moelab.cli import main, COMMANDS\n"
        "for name in COMMANDS:\n"
        "    try: main([name, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = {'numpy', 'polars', 'scipy', 'torch', 'altair', 'pydantic', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


WRONG_RUNS = [
    ("d_modle: 16", "nowhere", [], "model.d_modle: unknown key; did you mean 'd_model'?"),
    ("d_model: 16", "nowhere", [], "holds no prepared data"),
    ("d_model: 16", "tiny", [], "model.vocab_size: must be at least the data's 300"),
    ("d_model: 16, vocab_size: 300", "tiny", ["--log", "paper"], "--log: expected tensorboard or wandb, got 'paper'"),
]
REFUSED = """
import contextlib, io, json, sys
sys.modules['torch'] = None
from moelab.cli import main
found = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try: main(words)
        except SystemExit as end: found.append([end.code, errors.getvalue()])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Any) -> list[tuple[int, str]]:
    """Exit code and stderr of `moelab train` for each of the wrong runs, in one process that has no torch."""
    folder, commands = tmp_path_factory.mktemp("wrong"), []
    for number, (model, data, extra, _) in enumerate(WRONG_RUNS):
        size = "" if "vocab_size" in model else "vocab_size: 100, "
        where = tiny_dataset.folder if data == "tiny" else folder / data
        path = folder / f"{number}.yaml"
        path.write_text(
            f"model: {{{model}, {size}n_layers: 1, n_heads: 1, d_ff: 16}}\ndata: {{path: {where}}}\n"
            "train: {tokens: 640, seq_len: 16, batch_tokens: 64}\n"
        )
        commands.append(["train", str(path), "--out", str(folder / "runs"), *extra])
    code = [sys.executable, "-c", REFUSED, json.dumps(commands)]
    ended = subprocess.run(code, capture_output=True, text=True, check=True)
    return [(code, errors) for code, errors in json.loads(ended.stdout)]


@pytest.mark.parametrize(("model", "data", "extra", "message"), WRONG_RUNS)
def test_a_wrong_run_is_refused_before_torch_is_imported(
    refused: list[tuple[int, str]], model: str, data: str, extra: list[str], message: str
) -> None:
    code, errors = refused[WRONG_RUNS.index((model, data, extra, message))]
    assert code == 2, errors
    assert message in errors
    assert "torch" not in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("count", "llama3-8b", "--seq-len", "abc"), "error: --seq-len: expected a number"),
        (
            ("plan", "--flops", "1e21", "--law", "hofman"),
            "error: --law: no such law 'hofman'; did you mean 'hoffmann2022'",
        ),
        (("plan", "--flops", "x"), "error: plan: --flops: expected a number"),
        (("serving", "llama3-8b", "--hardware", "H10"), "error: --hardware: no such device 'H10'; did you mean 'h100'"),
        (("count", "mixtral"), "preset 'mixtral'; did you mean 'mixtral-8x7b' or 'mixtral-8x22b'? presets: "),
        (("count", "Qwen3-30b"), "did you mean 'qwen3-30b-a3b'"),
        (("laws", "hofmann"), "did you mean 'hoffmann2022'?"),
        (("study", "quickstat"), "did you mean 'quickstart'? ready: "),
    ],
)
def test_errors_name_the_flag_and_what_is_near(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, errors = answer(capsys, *words)
    assert code == 2
    assert message in errors


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_an_option_names_the_kind_of_its_value(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    out = answer(capsys, *words, "-h")[1]
    options = out.partition("Arguments:")[2].partition("\n\n")[2] if "Arguments:" in out else out
    assert "<str>" not in options
    assert "<float>" not in options
    assert "<int" not in options


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_a_default_is_no_part_of_the_sentence(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    out = " ".join(answer(capsys, *words, "-h")[1].split())
    assert not re.search(r"; default\b|\bby default\b|; else ", out)
    assert not re.search(r"(?<!\[)default: ", out)


def test_defaults_that_follow_other_options_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for command, defaults in {
        "fit": ("loss", "(0.2 where possible)", "(huber:1e-3, for rules squared)", "(the law's own)"),
        "isoflop": ("(log for sizes, tokens, experts and FLOPs)", "(1000 parabolas, 100 surfaces)", "0.03"),
        "serving": ("(as calibrated)", "(the catalogue's)"),
        "plan": ("(balance with --serve-tokens, else loss)", "(a hundredth of the plan's)", "(--seq-len)"),
    }.items():
        shown = " ".join(answer(capsys, command, "-h")[1].split())
        for default in defaults:
            assert f"[default: {default}]" in shown or f"[default: ({default})]" in shown, default


def test_kinds_and_defaults_of_plan(capsys: pytest.CaptureFixture[str]) -> None:
    shown = " ".join(answer(capsys, "plan", "-h")[1].split())
    for text in ("--flops <flops>", "--max-params <count>", "--tpot <time>", "--out <path>", "--max-memory <bytes>"):
        assert text in shown
    for default in ("(4096)", "bf16", "(the cheapest)", "(predicted)", "10"):
        assert f"[default: {default}]" in shown
    assert "--prompt <text>" in answer(capsys, "generate", "-h")[1]
