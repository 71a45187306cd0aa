"""`moelab laws`, `fit`, `predict` and `isoflop`: their JSON contract and their one-line errors."""

import json

import numpy as np
import polars as pl
import pytest

from moelab.cli import main
from moelab.laws import get_law


@pytest.fixture
def run(capsys):
    """Run a command line; returns the exit code, stdout and stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        out = capsys.readouterr()
        return int(stop.value.code or 0), out.out, out.err

    return call


@pytest.fixture
def runs(tmp_path):
    """Forty dense runs as somebody else's CSV: other names, spaces, FLOPs instead of tokens."""
    rng = np.random.default_rng(0)
    params = np.exp(rng.uniform(18, 22, 40))
    tokens = params * np.exp(rng.uniform(1, 5, 40))
    loss = get_law("besiroglu2024").loss(None, {"params_total": params, "tokens": tokens})
    path = tmp_path / "runs.csv"
    pl.DataFrame(
        {
            "Model Size": params,
            "Training FLOP": 6 * params * tokens,
            "loss": loss * np.exp(0.005 * rng.standard_normal(40)),
            "team": np.arange(40) % 4,
        }
    ).write_csv(path)
    return path


LET = ("--let", 'params_total = "Model Size"', "--let", 'tokens = "Training FLOP" / (6 * "Model Size")')
FEW = ("--bootstrap", "20", "--starts", "2")


def test_the_catalogue(run) -> None:
    code, out, _ = run("laws", "--json")
    listed = json.loads(out)
    assert code == 0
    ids = {law["law"] for law in listed["laws"]} | {rule["rule"] for rule in listed["rules"]}
    assert {
        "hoffmann2022", "besiroglu2024", "krajewski2024", "krajewski2024-x16", "krajewski2024-dense", "yun2024",
        "abnar2025", "clark2022-sbase", "clark2022-rlr", "clark2022-hash", "ludziejewski2025", "tian2025",
        "muennighoff2023", "wang2024", "fivefactor2025", "frantar2023", "steplaw2025", "deepseek2024",
    } <= ids  # fmt: skip
    code, out, _ = run("laws", "yun2024")
    assert code == 0
    assert "none published" in " ".join(out.split())
    assert "18.0712" in run("laws", "krajewski2024")[1]
    assert run("laws")[0] == run("laws", "steplaw2025")[0] == 0


def test_the_optimum_is_a_contract(run) -> None:
    code, out, _ = run("laws", "krajewski2024", "--optimum", "--flops", "1.93e20", "--set", "expansion=64", "--json")
    found = json.loads(out)
    assert code == 0
    keys = ["params_total", "params_active", "tokens", "granularity", "n_experts", "train_flops", "loss"]
    assert set(keys) <= set(found)
    assert found["granularity"] == 16
    assert found["n_experts"] is None
    assert found["loss"] == pytest.approx(2.491, abs=0.002)
    out = run("laws", "tian2025", "--optimum", "--flops", "1e22", "--json")[1]
    assert json.loads(out)["loss"] is None
    assert run("laws", "deepseek2024", "--optimum", "--flops", "1e21", "--json")[0] == 0


def test_an_optimum_a_thousand_times_out_of_range_is_noted(run) -> None:
    for law, flops in (("tian2025", "1e24"), ("ludziejewski2025", "1e29")):
        call = ("laws", law, "--optimum", "--flops", flops)
        note = f"meaningless by {law}: a factor of 1,000 or more outside its runs"
        assert json.loads(run(*call, "--json")[1])["notes"] == [note]
        assert f"note: {note}" in run(*call)[1]
    assert json.loads(run("laws", "tian2025", "--optimum", "--flops", "1e22", "--json")[1])["notes"] == []


def test_fit_and_predict(run, runs, tmp_path) -> None:
    out_file = tmp_path / "fit.json"
    code, out, _ = run("fit", runs, "--law", "hoffmann2022", *LET, *FEW, "--out", out_file, "--json")
    assert code == 0
    fitted = json.loads(out)["fits"]["hoffmann2022"]
    assert fitted["law"] == "hoffmann2022"
    assert fitted["n_runs"] == 40
    assert set(fitted["coefficients"]["E_0"]) == {"value", "low", "high"}
    assert set(fitted["holdout"]) >= {"n_runs", "mean_abs_rel", "bias_rel", "coverage_80", "max_extrapolation"}
    assert fitted["holdout"]["n_runs"] == 8
    assert isinstance(fitted["objective"], float)
    code, out, _ = run("predict", out_file, "--set", "params_total=1e9", "--set", "tokens=20B", "--json")
    loss = json.loads(out)["predictions"]["hoffmann2022"]["loss"]
    assert code == 0
    assert loss["low"] < loss["value"] < loss["high"]
    truth = get_law("besiroglu2024").loss(None, {"params_total": 1e9, "tokens": 2e10})
    assert loss["value"] == pytest.approx(float(truth), rel=0.01)
    assert run("predict", out_file, "--set", "params_total=1e9", "--set", "tokens=20B", "--noise")[0] == 0
    assert run("predict", out_file, "--config", "llama3-8b", "--tokens", "1T")[0] == 0
    code, out, _ = run("laws", "hoffmann2022", "--optimum", "--flops", "1e20", "--fit", out_file, "--json")
    assert code == 0
    assert json.loads(out)["params_total"] == pytest.approx(1e9, rel=0.9)


def test_fit_prints_for_people(run, runs) -> None:
    code, out, _ = run("fit", runs, "--law", "all", *LET, *FEW, "--holdout-by", "team")
    assert code == 0
    assert "hoffmann2022" in out
    assert "left out abnar2025: no column for sparsity" in out
    code, out, _ = run(
        "fit", runs, "--law", "hoffmann2022", *LET, *FEW, "--holdout-where", "team = 3", "--fix", "E_0=1.8"
    )
    assert code == 0
    assert "held" in out


def test_predict_with_published_coefficients(run) -> None:
    code, out, _ = run("predict", "hoffmann2022", "--set", "params_total=1e9", "--set", "tokens=20B", "--json")
    assert code == 0
    assert json.loads(out)["predictions"]["hoffmann2022"]["loss"]["low"] is None
    assert run("predict", "abnar2025", "--config", "olmoe-1b-7b", "--tokens", "5T")[0] == 0


def test_leverage_is_not_printed_as_a_loss(run) -> None:
    settings = ("expert_activation=0.03", "granularity_ling=12", "train_flops=1e20")
    code, out, _ = run("predict", "tian2025", *(word for each in settings for word in ("--set", each)))
    assert code == 0
    assert "leverage" in out
    assert "value" not in out


def test_an_unknown_range_is_not_called_inside(run) -> None:
    words = ("predict", "abnar2025", "--set", "params_total=1e20", "--set", "tokens=10", "--set", "sparsity=0.5")
    assert "unknown" in run(*words)[1]
    assert json.loads(run(*words, "--json")[1])["predictions"]["abnar2025"]["extrapolation"] is None


def test_isoflop(run, tmp_path) -> None:
    path = tmp_path / "slice.csv"
    rate = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    pl.DataFrame({"activation_rate": rate, "loss": 3 + 0.05 * np.log(rate / 0.2) ** 2}).write_csv(path)
    code, out, _ = run("isoflop", path, "--x", "activation_rate", "--log", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found["optimum"]) == {"value", "low", "high"}
    assert found["optimum"]["value"] == pytest.approx(0.2)
    assert {"loss_at_optimum", "curvature", "n_points"} <= set(found)
    assert run("isoflop", path, "--x", "activation_rate", "--log")[0] == 0
    code, _, err = run("isoflop", path, "--x", "activation_rate", "--log", "--let", "loss = 6 - loss")
    assert code == 2
    assert "opens downward" in err


def test_isoflop_surface(run, tmp_path) -> None:
    path, rng = tmp_path / "surface.csv", np.random.default_rng(0)
    n, s = np.log(1e9) + rng.uniform(-2, 2, 40), rng.uniform(0, 3, 40)
    loss = 3 + 0.05 * (n - np.log(1e9)) ** 2 + 0.02 * (s - 1.5) ** 2
    flops = np.where(np.arange(40) % 2, 1e18, 1e20)
    pl.DataFrame({"params_total": np.exp(n), "sparsity": 1 - np.exp(-s), "loss": loss, "train_flops": flops}).write_csv(
        path
    )
    words = ("isoflop", path, "--x", "sparsity", "--surface", "--draws", "20")
    found = json.loads(run(*words, "--json")[1])
    assert {"x", "optimum", "loss_at_optimum", "curvature", "n_points"} <= set(found)
    assert found["optimum"]["value"] == pytest.approx(1 - np.exp(-1.5), abs=0.01)
    assert "a factor of 100" in found["notes"][0]
    assert "not of one compute" in " ".join(run(*words)[1].split())
    assert run(*words, "--plot", tmp_path / "surface.svg")[0] == 0
    assert "diamond: the lowest point" in (tmp_path / "surface.svg").read_text()
    for extra, message in (
        (["--log"], "--log: a surface"),
        (["--x", "granularity"], "expected one of params_total, sparsity"),
    ):
        code, _, err = run(*words, *extra)
        assert code == 2
        assert message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["laws", "nothing"], "no such law"),
        (["laws", "--optimum", "--flops", "1e20"], "need a law's name"),
        (["laws", "hoffmann2022", "--optimum"], "--flops"),
        (["laws", "hoffmann2022", "--flops", "1e20"], "go with --optimum"),
        (["laws", "hoffmann2022", "--max-memory", "80GB"], "go with --optimum"),
        (["laws", "krajewski2024", "--optimum", "--flops", "1e20", "--set", "expansion"], "expected NAME=VALUE"),
        (["laws", "krajewski2024", "--optimum", "--flops", "1e20", "--set", "expansion=8"], "expansion 64 only"),
        (["laws", "steplaw2025", "--optimum", "--flops", "1e20"], "only a rule in train_flops"),
        (["fit", "absent.csv", "--law", "all"], "no such file"),
        (["predict", "absent.json", "--set", "tokens=1e9"], "no such file"),
        (["predict", "hoffmann2022"], "give either --set"),
        (["predict", "hoffmann2022", "--config", "llama3-8b"], "tokens: a config needs"),
        (["predict", "hoffmann2022", "--config", "mixtral-8x7b", "--tokens", "1T"], "dense models only"),
        (["predict", "hoffmann2022", "--set", "tokens"], "expected NAME=VALUE"),
        (["predict", "hoffmann2022", "--set", "params_total=1e9", "--set", "token=1e9"], "did you mean 'tokens'?"),
        (["predict", "wang2024", "--set", "topk=2"], "no law knows a variable 'topk'; did you mean 'top_k'?"),
        (["predict", "hoffmann2022", "--set", "tokens=1e9", "--set", "tokens=2e9"], "--set: tokens is given twice"),
        (["predict", "hoffmann2022", "--set", "tokens=1e9", "--tokens", "1e9"], "goes with --config"),
        (["predict", "hoffmann2022", "--set", "tokens=1e9", "--law", "besiroglu2024"], "is one published law"),
        (
            ["predict", "wang2024", "--set", "n_experts=8", "--set", "top_k=16", "--set", "params_active=1e9"],
            "top_k: 16 experts cannot be chosen of 8",
        ),
        (["laws", "--markdown", "--json"], "--markdown prints the whole catalogue"),
        (["laws", "hoffmann2022", "--markdown"], "--markdown prints the whole catalogue"),
        (["laws", "ludziejewski2025", "--optimum", "--flops", "1e20", "--set", "n_experts=0.5"], "at least 1, got 0.5"),
        (
            ["laws", "moelab2026", "--optimum", "--flops", "1e20", "--set", "n_experts=0.5"],
            "--set: n_experts must be at least 1, got 0.5",
        ),
        (["laws", "ludziejewski2025", "--optimum", "--flops", "1e20", "--max-memory", "80"], "max_memory is 80 B"),
        (["predict", "hoffmann2022", "--set", "tokens=1e9"], "no column for params_total; give it by name, --set"),
    ],
)
def test_errors_are_one_line_and_exit_with_two(words, message, run) -> None:
    code, out, err = run(*words)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_bad_fit_options(run, runs) -> None:
    for extra, message in (
        (["--let", "tokens = 300B"], "write '300B'"),
        ([*LET, "--fix", "zeta=1"], "no coefficient 'zeta'"),
        ([*LET, "--fix", "alpha"], "expected NAME=VALUE"),
        ([*LET, "--objective", "absolute"], "objective"),
        ([*LET, "--share", "alpha"], "expected two coefficients or more, got alpha"),
        ([*LET, "--fix", "alpha=0.3", "--fix", "alpha=0.4"], "--fix: alpha is given twice"),
        ([*LET, "--group", "nothing"], "no column 'nothing'"),
        ([*LET, "--holdout", "1.5"], "between 0 and 1"),
        ([*LET, "--where", "team > 9"], "no rows left by --where"),
        (["--check", "--out", "fit.json"], "--out: --check fits nothing, so there is nothing to write"),
        (["--check", "--plot", "fit.svg"], "--plot: --check fits nothing"),
        ([*LET, "--holdout-where", "team > 9"], "some rows and not for all"),
        ([], "no column for params_total, tokens"),
    ):
        code, _, err = run("fit", runs, "--law", "hoffmann2022", *FEW, *extra)
        assert code == 2, extra
        assert message in err


def test_isoflop_checks_its_table_and_keeps_the_best_of_each_design(run, tmp_path) -> None:
    size = np.repeat(np.geomspace(1e8, 1.6e9, 7), 3)
    rate = np.tile([1e-3, 2e-3, 4e-3], 7)
    loss = 2.5 + 0.04 * np.log(size / 4e8) ** 2 + 0.05 * np.log(rate / 2e-3) ** 2
    table = {"params_total": size, "tokens": 1e19 / (6 * size), "learning_rate": rate, "loss": loss}
    pl.DataFrame(table).write_csv(tmp_path / "runs.csv")
    call = ("isoflop", tmp_path / "runs.csv", "--x", "params_total", "--log", "--json")
    swept = json.loads(run(*call)[1])
    assert any("sweep learning_rate over 7 designs" in note for note in swept["notes"])
    best = json.loads(run(*call, "--best-of", "params_total")[1])
    assert best["n_points"] == 7
    assert best["notes"] == []
    assert best["optimum"]["value"] == pytest.approx(4e8)
    code, _, error = run(*call, "--tolerance", "0.1")
    assert code == 2
    assert "--tolerance: goes with --by" in error
    budgets = json.loads(run(*call, "--best-of", "params_total", "--by", "budget")[1])
    assert budgets["budgets"][0]["repeats"] == 0
    call = ("isoflop", tmp_path / "runs.csv", "--x", "params_total", "--by", "budget")
    assert "1e19" in run(*call)[1]
    assert "--at: must be above 0, got 0" in run(*call, "--at", "1e20", "--at", "0")[2]
