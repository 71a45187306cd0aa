"""Notes on rows that summarise others, batches in sequences, words in a loss, and columns of nested names."""

import numpy as np
import pytest

from moelab.cli import main
from moelab.fitting.slice import isoflop_slice
from moelab.fitting.table_checks import check_table
from moelab.fitting.table_columns import losses_of, suggestions
from moelab.runs.table import load_table

N, D = (np.array(values).ravel() for values in np.meshgrid(np.geomspace(4e7, 1.3e9, 6), np.geomspace(4e8, 6e10, 5)))


def runs(seed: int = 0) -> dict[str, np.ndarray]:
    noise = np.exp(0.002 * np.random.default_rng(seed).standard_normal(len(N)))
    return {"params_total": N, "tokens": D, "loss": np.round((1.69 + 406.4 / N**0.34 + 410.7 / D**0.28) * noise, 4)}


def found(table) -> dict[str, str]:
    return {each.check: str(each) for each in check_table(table)}


@pytest.mark.parametrize("of", [np.mean, np.sum])
def test_a_last_row_of_means_or_sums_is_no_run(of) -> None:
    table = {name: np.append(values, of(values)) for name, values in runs().items()}
    notes = found(table)
    assert "row 31, the last one, is the mean or sum of all others" in notes["summary"]
    assert "diverged" not in notes
    assert "summary" not in found(runs())


def test_a_row_that_is_called_average_is_no_run(tmp_path) -> None:
    table = {name: np.append(values, 1.1 * values[3]) for name, values in runs().items()}
    table["model"] = np.array([*(f"m{k}" for k in range(30)), "Average:"])
    note = found(table)["summary"]
    assert note.endswith("""leave it out with --where "model != 'Average:'\"""")
    assert load_table(table, where=["model != 'Average:'"]).height == 30
    table["model"] = np.array(["concat", "sum", "concat"] * 10 + ["mean"])  # a setting: how outputs are joined
    assert "summary" not in found(table)


@pytest.mark.parametrize(
    ("columns", "note"),
    [
        (
            {"batch_tokens": np.full(30, 256.0)},
            "batch_tokens: 256 look like sequences, and rules for the batch are of tokens; "
            "--let 'batch_tokens = batch_tokens * TOKENS_PER_SEQUENCE'",
        ),
        ({"batch_tokens": np.full(30, 2048.0), "seq_len": np.full(30, 4096.0)}, "batch_tokens * seq_len'"),
        ({"batch_size": np.tile([64.0, 128.0], 15)}, "--let 'batch_tokens = batch_size * TOKENS_PER_SEQUENCE'"),
        ({"Global Batch Size": np.tile([64.0, 128.0], 15)}, """'batch_tokens = "Global Batch Size" * TOKENS"""),
        ({"batch_size": np.full(30, 256.0)}, None),
        ({"batch_tokens": np.tile([65536.0, 131072.0], 15)}, None),
        ({"batch_size": np.tile([64.0, 128.0], 15), "batch_tokens": np.tile([65536.0, 131072.0], 15)}, None),
        ({"batch_tokens": np.full(30, 256.0), "tokens": D / 1e3}, None),  # toy runs of few tokens
    ],
)
def test_batches_in_sequences(columns, note) -> None:
    notes = found({**runs(), **columns})
    assert ("batch" in notes) == (note is not None)
    assert note is None or note in notes["batch"]


def test_words_in_a_loss_name_the_condition_that_drops_them(tmp_path) -> None:
    table = runs()
    texts = [str(value) for value in table["loss"]]
    texts[4], texts[17] = "OOM", "diverged"
    assert "--where \"loss NOT IN ('OOM', 'diverged')\"" in found({**table, "loss": np.array(texts)})["cells"]
    assert found({**table, "loss": np.array([f"{t} +- 0.1" for t in texts])})["cells"].endswith("+- 0.1'")
    lines = [",".join(table), *(",".join(map(str, row)) for row in zip(N, D, texts, strict=True))]
    (tmp_path / "oom.csv").write_text("\n".join(lines) + "\n")
    kept = load_table(tmp_path / "oom.csv", where=["loss NOT IN ('OOM', 'diverged')"])
    assert found(kept) == {}


def test_missing_tokens_name_the_condition_that_drops_them(tmp_path, capsys) -> None:
    rows = [f"{n},{'' if k == 4 else d},{x}" for k, (n, d, x) in enumerate(zip(*runs().values(), strict=True))]
    (tmp_path / "blank.csv").write_text("\n".join(["params_total,tokens,loss", *rows]) + "\n")
    with pytest.raises(SystemExit) as stop:
        main(["fit", str(tmp_path / "blank.csv"), "--law", "hoffmann2022"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith('drop them with --where "tokens > 0"')


def test_losses_on_several_texts_are_not_called_another_unit() -> None:
    base = runs()
    table = {name: np.tile(values, 2) for name, values in base.items()}
    table["loss"] = np.append(base["loss"], 0.5 * base["loss"])
    table["dataset"] = np.repeat(["c4", "code"], 30)
    notes = found(table)
    assert "2 texts (column dataset)" in notes["texts"]
    assert "units" not in notes
    assert "look like bits per byte" in found({k: v for k, v in table.items() if k != "dataset"})["units"]


def test_tokens_in_billions_beside_parameters_in_millions_are_not_swapped() -> None:
    table = runs()
    notes = [str(each) for each in check_table({**table, "params_total": N / 1e6, "tokens": D / 1e9})]
    assert len(notes) == 2
    assert not any("swapped" in note for note in notes)


def test_untrained_checkpoints_are_not_called_diverged() -> None:
    steps = np.tile([0, 1000, 2000, 4000], 6)
    size = np.repeat(np.geomspace(4e7, 1e9, 6), 4)
    loss = np.where(steps == 0, 10.83, 2 + 400 / size**0.34 + 400 / np.maximum(steps * 5e5, 1) ** 0.28)
    table = {
        "run": np.repeat(np.arange(6), 4),
        "step": steps,
        "params_total": size,
        "tokens": steps * 5e5,
        "loss": loss,
    }
    notes = found(table)
    assert "diverged" not in notes
    assert '--where "tokens > 0"' in notes["values"]


def test_names_of_trackers() -> None:
    names = ["model/num_params", "throughput/total_tokens", "train/loss", "eval/c4/CrossEntropyLoss", "aux_loss"]
    near = suggestions(names)
    assert near["params_total"] == ("model/num_params", '"model/num_params"')
    assert near["tokens"] == ("throughput/total_tokens", '"throughput/total_tokens"')
    assert near["loss"][0] == "eval/c4/CrossEntropyLoss"
    two = [*names, "eval/pile/CrossEntropyLoss"]
    assert "loss" not in suggestions(two)
    assert losses_of(two) == ["eval/c4/CrossEntropyLoss", "eval/pile/CrossEntropyLoss"]
    assert losses_of(["loss_1B", "loss_2B", "m0 - val/loss"]) == []
    assert "loss" not in suggestions(["tokens", "m0 - val/loss", "m1 - val/loss"])
    assert suggestions(["Val loss (nats)"])["loss"][0] == "Val loss (nats)"


def test_tables_of_one_measure_per_row() -> None:
    base = runs()
    table = {name: np.repeat(values, 2) for name, values in base.items() if name != "loss"}
    table |= {"metric": np.tile(["val_loss", "ppl"], 30), "value": np.repeat(base["loss"], 2)}
    assert "--where \"metric = 'val_loss'\" --loss value" in found(table)["names"]


def test_dense_rows_of_another_file_have_no_active_parameters(tmp_path) -> None:
    base = runs()
    frames = (base, {**base, "params_total": 8 * N, "params_active": N, "n_experts": np.full(30, 8.0)})
    for name, table in zip(("dense.csv", "moe.csv"), frames, strict=True):
        lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    notes = found(load_table([tmp_path / "dense.csv", tmp_path / "moe.csv"]))
    assert "30 of 60 rows have no n_experts and are taken as dense" in notes["blanks"]
    assert "params_active that of params_total" in notes["blanks"]
    assert "values" not in notes


def test_an_optimum_of_sparsity_is_found_where_the_axis_itself_bends_downward() -> None:
    sparsity = np.array([0, 0.5, 0.75, 0.875, 0.9375, 0.96875, 0.984])
    loss = 2.5 + 0.01 * np.log((1 - sparsity) / 0.04) ** 2
    best = isoflop_slice(sparsity, loss, name="sparsity")
    assert best.edge is None
    assert best.optimum["low"] <= 0.96 <= best.optimum["high"]
    assert best.optimum["value"] == pytest.approx(0.96, abs=0.01)


@pytest.mark.parametrize("name", ["activation_rate", "sparsity"])
def test_an_optimum_along_the_logarithm_is_no_straight_line(name) -> None:
    rate = np.array([0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0])
    noise = 1 + 0.0002 * np.random.default_rng(1).standard_normal(8)
    loss = (2.8 + 0.005 * np.log(rate / 0.05) ** 2) * noise
    found = isoflop_slice(rate if name == "activation_rate" else 1 - rate, loss, name=name)
    value, low, high = found.optimum.values()
    best = 0.05 if name == "activation_rate" else 0.95
    assert found.edge is None
    assert 0 <= low <= best <= high
    assert value == pytest.approx(best, rel=0.1)
    if name == "activation_rate":
        assert any(note.endswith("add --log") for note in found.notes)


def test_one_compute_is_printed_once(tmp_path, capsys) -> None:
    """Ten times a budget of 1e20 FLOPs is 1e21 but for rounding."""
    rows = []
    for budget in (1e18, 1e19, 1e20):
        for n in (budget / 6 / 20) ** 0.5 * np.geomspace(0.2, 5, 8):
            d = budget / 6 / n
            rows.append(f"{n!r},{d!r},{6 * n * d!r},{1.69 + 406.4 / n**0.34 + 410.7 / d**0.28!r}")
    (tmp_path / "iso.csv").write_text(
        "\n".join(["params_total,tokens,train_flops,loss", *rows]).replace("np.float64(", "").replace(")", "") + "\n"
    )
    with pytest.raises(SystemExit):
        main(
            [
                "isoflop",
                str(tmp_path / "iso.csv"),
                "--x",
                "params_total",
                "--by",
                "budget",
                "--at",
                "1e21",
                "--at",
                "1e21",
            ]
        )
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("at 1e21 FLOPs") for line in lines) == 1
    assert sum(line.startswith("best params_total at 1e21 FLOPs") for line in lines) == 1
