"""Write the table that ships as `moelab.runs.datasets.reference()` from the records below results/reference.

    python benchmarks/reference_table.py [--records FOLDER]

A second. The data card's counts are written, too. Run it whenever records were added.
"""

import argparse
import json
from pathlib import Path

import polars as pl

from moelab.files import write_text
from moelab.runs import RunRecord

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "src" / "moelab" / "runs" / "tables"
STUDIES = {"rates": "reference-rates", "runs": "reference"}
"""Folder of results/reference -> the study whose records lie there."""
LEFT_OUT = (
    "peak_memory_bytes",
    "resumed",
    "device",
    "processes",
    "parent_run",
    "parent_step",
    "stopped_at",
    "bits_per_byte_leak_free",
)


def table(records: Path) -> pl.DataFrame:
    """Every finished record, by study and id, with the columns of a run's row that are not all empty."""
    rows = []
    for folder, study in STUDIES.items():
        for path in sorted((records / folder).glob("*.json")):
            record = RunRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
            if record.loss is not None:
                rows.append({"study": study, **record.row()})
    found = pl.DataFrame(rows, infer_schema_length=None).sort("study", "run_id")
    empty = [name for name in found.columns if found[name].null_count() == len(found)]
    return found.drop([name for name in (*LEFT_OUT, *empty) if name in found.columns])


CARD = """# Data card: reference

**What.** {count} finished training runs of small language models by moelab itself: {by_study}. {low:,} to {high:,}
active parameters, {least:,} to {most:,} tokens. One row per run; columns as everywhere in moelab (`loss` in nats per
token on held-out text, `unique_tokens` U, `epochs`, exact `train_flops`).

**How.** `configs/studies/reference-rates.yaml` and `configs/studies/reference.yaml`, one CPU thread, fp32, Muon,
cosine, batches of 8 sequences of 128 tokens, byte-level BPE of 512 tokens. The text is moelab's default corpus:
packages of public-domain and open texts, listed with their licences in docs/data.md. Runs of `reference` were chosen by
optimal design for the coefficients of moelab2026, so levels are not crossed evenly.

**Use.** `moelab.runs.datasets.reference()`. To fit laws, keep the rows of the study `reference`: the others differ in
their learning rate. Hash routing and Mixture of Tokens stand in the column `router`.

**Limits.** Losses per token of a vocabulary of 512 do not compare with other tokenizers'. Sizes are a thousandth of
those that laws are published for. Speeds were measured on a shared machine under load;
13 runs took more than the 20 minutes that they were planned for, the longest 79.

**Licence.** Apache-2.0, as moelab. **Built by** `python benchmarks/reference_table.py` from `results/reference`.
"""


def card(rows: pl.DataFrame) -> str:
    """The data card with this table's counts."""
    by_study = ", ".join(f"{count} of `{study}`" for study, count in sorted(rows.group_by("study").len().iter_rows()))
    return CARD.format(
        count=len(rows), by_study=by_study, low=rows["params_active"].min(), high=rows["params_active"].max(),
        least=rows["tokens"].min(), most=rows["tokens"].max(),
    )  # fmt: skip


def main() -> None:
    """Write the table and its card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=ROOT / "results" / "reference")
    rows = table(parser.parse_args().records)
    write_text(PLACE / "reference.csv", rows.write_csv())
    write_text(PLACE / "reference.md", card(rows))
    print(f"{len(rows)} runs, {len(rows.columns)} columns")


if __name__ == "__main__":
    main()
