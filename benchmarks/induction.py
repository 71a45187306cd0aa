"""What runs have learned to copy from their context: losses by position, and of tokens that continue a repeat.

    python benchmarks/induction.py studies/predictions [studies/prediction-seeds] [--out induction.json]

Reads the runs of studies that have weights, and their prepared text; a quarter of a minute each. A token is `repeated`
where the two tokens before it stood together earlier in its sequence and were followed by it the last time, `changed`
where they were followed by another. A model with induction heads (Olsson et al., arXiv 2209.11895) does well on the
former. `early` and `late` are the mean losses at positions 4 to 15 and from the middle of the sequence on: the early
ones leave little to copy from. All in nats per token, on the held-out text of the record's loss.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moelab.evaluation.loss import validation_batches
from moelab.files import write_json
from moelab.training.open import open_run

EARLY = slice(4, 16)
COLUMNS = ("loss", "early", "late", "repeated", "changed")


def continuations(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(B, T): 1 where the target continues its two tokens as it did the last time in its row, -1 where they were
    followed by another, 0 where they are new."""
    found = np.zeros(rows.shape, np.int8)
    for row, (tokens, after) in enumerate(zip(rows.tolist(), targets.tolist(), strict=True)):
        last: dict[tuple[int, int], int] = {}
        for at in range(1, len(tokens)):
            pair = (tokens[at - 1], tokens[at])
            if pair in last:
                found[row, at] = 1 if last[pair] == after[at] else -1
            last[pair] = after[at]
    return found


@torch.no_grad()
def measured(run: Path, data: Path) -> dict[str, float]:
    """The losses of COLUMNS for one run, in nats per token, with the share of tokens that are repeated."""
    _, config, model, dataset = open_run(run, data)
    model.eval()
    train = config.train
    batches = validation_batches(
        dataset,
        config.model,
        seq_len=train.seq_len,
        trained_rows=train.batch_tokens // train.seq_len,
        max_tokens=train.eval_tokens,
    )
    losses, kinds = [], []
    for batch in batches:
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        found = model.loss(inputs, targets, reduction="none").loss.double().numpy()
        losses.append(found.reshape(batch.inputs.shape))
        kinds.append(continuations(batch.inputs, batch.targets))
    loss, kind = np.concatenate(losses), np.concatenate(kinds)
    result = {"loss": loss.mean(), "early": loss[:, EARLY].mean(), "late": loss[:, train.seq_len // 2 :].mean()}
    result |= {"repeated": loss[kind == 1].mean(), "changed": loss[kind == -1].mean()}
    return {name: float(value) for name, value in result.items()} | {"share_repeated": float(np.mean(kind == 1))}


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", help="folders of studies whose runs have weights")
    parser.add_argument("--data", type=Path, help="prepared text (default: that of each study)")
    parser.add_argument("--out", type=Path, help="write the table here")
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    print(f"{'run':34s} {'seed':>4s} {'M tokens':>8s} " + " ".join(f"{name:>8s}" for name in COLUMNS))
    for weights in (path for study in options.studies for path in sorted(study.glob("runs/*/model.safetensors"))):
        record = json.loads((weights.parent / "record.json").read_text(encoding="utf-8"))
        row = {name: record[name] for name in ("run_id", "name", "seed", "tokens")}
        row |= measured(weights.parent, options.data or weights.parents[2] / "data")
        found.append(row)
        numbers = " ".join(f"{row[name]:8.3f}" for name in COLUMNS)
        print(f"{row['name'][:34]:34s} {row['seed']:4d} {row['tokens'] / 1e6:8.2f} {numbers}", flush=True)
    if not found:
        parser.error(f"{options.studies[0]}: no run with weights")
    if options.out:
        write_json(options.out, {"positions": {"early": "4 to 15", "late": "second half"}, "runs": found})


if __name__ == "__main__":
    main()
