"""Messages about a table name what the fit page offers, and no option of the command line alone."""

import re
from pathlib import Path

import pytest

import moelab.fitting
from moelab.app.fit_words import fit_worded


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("left out; map one with --let 'n_experts = ...'", "left out; map a column to “Experts” by hand"),
        ("tokens: 1 to 4 look like billions; --let 'tokens = 1e9 * tokens'",
         "tokens: 1 to 4 look like billions; choose the unit billions for “Training tokens”"),
        ("'Seen (B)' looks like tokens, which no column is named; --let 'tokens = 1e9 * \"Seen (B)\"'",
         "'Seen (B)' looks like tokens, which no column is named; map “Seen (B)” to “Training tokens”, in billions"),
        ("loss: 12 to 30 look like perplexity, not nats per token; --let 'loss = LN(loss)'",
         "loss: 12 to 30 look like perplexity, not nats per token; replace “Loss, nats per token” in the table by "
         "LN(loss)"),
        ("no column 'loss'; fit one with --loss NAME", "no column 'loss'; map a column to “Loss, nats per token”"),
        ("fit one: --loss val or --loss \"Final CE\"", "map one to “Loss, nats per token”: val or \"Final CE\""),
        ("no column 'loss'; --loss \"Final CE\"", "no column 'loss'; map \"Final CE\" to “Loss, nats per token”"),
        ("2 rows diverged; leave them out with --where \"\"Final CE\" < 9\"",
         "2 rows diverged; keep only the rows with \"Final CE\" < 9 in the table"),
        ("does not describe the dense runs; leave them out with --where",
         "does not describe the dense runs; leave them out of the table"),
        ("one size only; hold its exponent with --fix alpha=...", "one size only; moelab fit can hold its exponent"),
        ("fitted with the prior 'public' (--prior none fits without)",
         "fitted with the prior 'public' (moelab fit can fit without)"),
        ("residuals of all laws share a trend; add a law with --law-file",
         "residuals of all laws share a trend; moelab fit can add a law of one's own"),
        ("9 rows are checkpoints of 3 runs; --group none takes every row as a run of its own",
         "9 rows are checkpoints of 3 runs; moelab fit can take every row as a run of its own"),
        ("no column for n_experts, params_dense", "no column for “Experts”, params_dense"),
        ("from 64 starts: `moelab fit --starts 64`", "from 64 starts: `moelab fit --starts 64`"),
        ("give each with --by budget", "give each with `--by` of moelab fit budget"),
    ],
)  # fmt: skip
def test_options_are_what_the_page_offers(text: str, page: str) -> None:
    assert fit_worded(text) == page


def test_a_factor_multiplies_the_unit_that_is_chosen() -> None:
    text = fit_worded("small; --let 'tokens = 1000 * tokens'", {"tokens": ("seen", "millions")})
    assert text == "small; choose the unit billions for “Training tokens”"


def test_no_advice_of_a_check_keeps_an_option() -> None:
    """Every piece of advice in the sources of the checks, with its placeholders filled."""
    found = []
    for source in sorted(Path(moelab.fitting.__path__[0]).glob("table_*.py")):
        for line in source.read_text(encoding="utf-8").splitlines():
            if "mend" in line and (advice := re.search(r"""=\s?f?(['"])(.*--.*)\1""", line)):
                found.append(re.sub(r"\{[^{}]*\}", "tokens", advice[2]).replace('\\"', '"'))
    assert len(found) > 10
    assert [text for text in map(fit_worded, found) if "--" in text] == []
