"""The commands count, serving, plan and compare: their JSON, their words, their complaints."""

import json
from pathlib import Path

import pytest

from moelab.architecture import ModelConfig
from moelab.cli import main
from moelab.fitting import FittedLaw, save_fits
from moelab.planning import Space


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as exit_:
        main(words)
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err


@pytest.fixture
def space_file(tmp_path: Path, tiny: Space) -> str:
    path = tmp_path / "space.yaml"
    tiny.to_yaml(path)
    return str(path)


@pytest.fixture
def fit_file(tmp_path: Path, fits: list[FittedLaw]) -> str:
    path = tmp_path / "fit.json"
    save_fits({fit.law.id: fit for fit in fits}, path)
    return str(path)


def test_count(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "count", "mixtral-8x7b", "--json")
    value = json.loads(out)
    assert code == 0
    keys = {
        "params_total", "params_active", "params_embedding", "params_router", "flops_per_token_forward",
        "flops_per_token_train",
    }  # fmt: skip
    assert keys <= set(value)
    assert value["params_total"] == sum(value["params_parts"].values())
    assert value["flops_per_token_forward"] == sum(value["flops_parts"].values())
    assert "46.7B" in run(capsys, "count", "mixtral-8x7b")[1]


def test_serving(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "serving", "olmoe-1b-7b", "--hardware", "h100", "--tpot", "50ms", "--json")
    keys = {
        "gpus", "batch", "tokens_per_second", "time_to_first_token", "time_per_output_token", "cost_per_million_tokens",
        "memory_bytes", "distinct_experts",
    }  # fmt: skip
    assert code == 0
    assert keys <= set(json.loads(out))
    assert "requests in flight" in run(capsys, "serving", "llama3-8b", "--hardware", "l40s")[1]
    words = ("serving", "llama3-8b", "--hardware", "h100", "--precision", "fp8", "--gpus")
    assert json.loads(run(capsys, *words, "8", "--json")[1])["warnings"] == []
    warnings = json.loads(run(capsys, *words, "1024", "--json")[1])["warnings"]
    assert len(warnings) == 3
    assert warnings[0].startswith("tensor parallel over 1,024 devices but 8 KV heads")
    assert warnings[2].startswith("not calibrated: 1,024 devices span several nodes")
    assert "note: tensor parallel over" in run(capsys, *words, "1024")[1]
    tables = tmp_path / "t.yaml"
    tables.write_text("prefill: {1: {1: 0.1, 2: 0.2}}\ndecode: {1: {1: 0.02, 64: 0.03}}\n")
    words = ("serving", "llama3-8b", "--hardware", "h100", "--tables", str(tables))
    code, out, _ = run(capsys, *words, "--gpus", "1", "--json")
    assert code == 0
    value = json.loads(out)
    assert value["gpus"] == 1
    assert keys <= set(value)
    assert json.loads(run(capsys, *words, "--json")[1]) == value
    assert value["warnings"][0].startswith("decode at a batch of")
    assert "note: decode at a batch of" in run(capsys, *words)[1]
    for flag in (("--tpot", "5ms"), ("--ttft", "1s"), ("--batch", "3"), ("--imbalance", "2")):
        code, _, err = run(capsys, *words, *flag)
        assert (code, err.startswith(f"error: {flag[0]}: is for the calibrated model")) == (2, True)


def test_serving_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    code, _, err = run(capsys, "serving", "mixtral-8x7b", "--hardware", "h100", "--gpus", "4", "--plot", str(path))
    assert code == 0, err
    rows = next(iter(json.loads(path.read_text())["datasets"].values()))
    batches = [row["batch"] for row in rows]
    assert batches == sorted(batches)
    assert len(batches) > 5
    speeds = [row["tokens_per_second"] for row in rows]
    assert speeds == sorted(speeds)


def test_plan_with_a_fit(capsys: pytest.CaptureFixture[str], space_file: str, fit_file: str) -> None:
    words = ("plan", "--flops", "5e12", "--space", space_file, "--law", fit_file)
    code, out, _ = run(capsys, *words, "--json", "--top", "3")
    value = json.loads(out)
    assert code == 0
    assert len(value["candidates"]) == 3
    assert value["candidates"][0]["regret_compute"]["high"] >= 0
    text = run(capsys, *words, "--top", "3")[1]
    assert "this one included, are near-equal" in " ".join(text.split())
    assert "probability that the best MoE beats the best dense" in " ".join(text.split())
    code, out, _ = run(capsys, *words, "--next-runs", "2", "--flops-each", "1e12", "--json")
    assert code == 0
    assert len(json.loads(out)["runs"]) == 2


def test_plan_draws(capsys: pytest.CaptureFixture[str], space_file: str, fit_file: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.svg"
    code, _, err = run(capsys, "plan", "--flops", "5e12", "--space", space_file, "--law", fit_file, "--plot", str(path))
    assert code == 0, err
    for name in ("plan.svg", "plan-pareto.svg", "plan-slices.svg"):
        assert (tmp_path / name).read_text().startswith("<svg")


def test_compare(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compare", "olmoe-1b-7b", "--flops", "1e21", "--json")
    sides = json.loads(out)["designs"]
    assert code == 0
    assert [side["name"] for side in sides] == ["olmoe-1b-7b", "strict reuse", "loose reuse", "dense baseline"]
    assert sides[1]["unique_tokens"] == sides[3]["tokens"]
    assert sides[2]["epochs"] == pytest.approx(2, rel=1e-3)
    assert "dense baseline" in run(capsys, "compare", "olmoe-1b-7b")[1]
    code, out, _ = run(capsys, "compare", "olmoe-1b-7b", "--equal", "params,flops,unique_tokens", "--json")
    sides = json.loads(out)["designs"]
    assert code == 0
    assert [side["name"] for side in sides] == ["strict reuse", "dense baseline"]
    assert sides[0]["unique_tokens"] == sides[1]["unique_tokens"]


def test_compare_warns_of_meaningless_predictions(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compare", "mixtral-8x7b", "llama3-8b", "--unique-tokens", "10")
    warnings = json.loads(run(capsys, *words, "--json")[1])["warnings"]
    assert warnings[0].startswith("mixtral-8x7b: meaningless by ")
    assert "worse than guessing" in warnings[0]
    assert "Warning: mixtral-8x7b: meaningless by" in run(capsys, *words)[1]
    fine = run(capsys, "compare", "olmoe-1b-7b", "--flops", "1e21")[1]
    assert "meaningless" not in fine
    assert "(x): how far outside the range" in fine


def test_the_price_of_training_is_shown(capsys: pytest.CaptureFixture[str], space_file: str) -> None:
    words = ("plan", "--flops", "5e12", "--space", space_file, "--law", "ludziejewski2025", "--train-hardware", "h100")
    assert "training $" in run(capsys, *words)[1]


BAD = [
    (["plan"], "flops: is required"),
    (["plan", "--flops", "lots"], "flops: expected a number such as 1e21"),
    (["plan", "--flops", "1e21", "--max-params", "1"], "max_params 1: no design fits; the nearest feasible value is"),
    (["plan", "--flops", "1e21", "--gpus", "8", "--days", "3"], "contradicts gpus and days"),
    (["plan", "--flops", "1e21", "--max-epochs", "3"], "--max-epochs: needs unique_tokens"),
    (["plan", "--flops", "1e21", "--tpot", "50ms"], "--tpot: needs --hardware"),
    (["plan", "--flops", "1e21", "--prompt", "9"], "--prompt: needs --hardware"),
    (["plan", "--flops", "1e21", "--output", "9"], "--output: needs --hardware"),
    (["plan", "--flops", "1e21", "--serve-gpus", "9"], "--serve-gpus: needs --hardware"),
    (["plan", "--flops", "1e21", "--gpu-price", "9"], "--gpu-price: needs --hardware"),
    (["plan", "--flops", "1e21", "--train-gpu-price", "9"], "--train-gpu-price: needs --train-hardware"),
    (["plan", "--flops", "1e21", "--hardware", "gb300", "--max-price", "1"], "give one: --gpu-price 2.5"),
    (["plan", "--flops", "1e21", "--hardware", "gb300", "--serve-tokens", "1T"], "objective balance needs dollars"),
    (
        ["plan", "--flops", "1e21", "--hardware", "h100", "--serve-tokens", "1T", "--train-hardware", "tpu-v5p"],
        "give one: --train-gpu-price 2.5",
    ),
    (["plan", "--flops", "1e21", "--mfu", "0.3"], "--mfu: needs --train-hardware"),
    (["plan", "--flops", "1e21", "--hardware", "h100", "--tpot", "50"], "tpot: expected a time with its unit, such as"),
    (["plan", "--flops", "1e21", "--serve-tokens", "1e12"], "--serve-tokens: needs --hardware"),
    (["plan", "--flops", "1e21", "--pay-serving"], "--pay-serving: needs --serve-tokens"),
    (["plan", "--flops", "1e21", "--hardware", "h1000"], "no such device 'h1000'"),
    (["plan", "--flops", "1e21", "--law", "nobody2020"], "no such law 'nobody2020'"),
    (["plan", "--flops", "1e21", "--space", "missing.yaml"], "no such file"),
    (["plan", "--flops", "1e21", "--top", "0"], "--top: must be 1 to 1000, got 0"),
    (["plan", "--flops", "1e21", "--plot", "x.txt", "--law", "nobody2020"], "--plot: expected a name that ends in"),
    (["plan", "--flops", "1e21", "--flops-each", "1e18"], "--flops-each: needs --next-runs"),
    (["plan", "--flops", "1e21", "--objective", "profit"], "objective"),
    (["plan", "--flops", "1e21", "--hardware", "h100", "--objective", "lifetime-cost", "--target-loss", "2"], "tokens"),
    (["plan", "--flops", "1e300"], "flops: must be above 0 and at most 1e30, got 1e300"),
    (["plan", "--flops", "1e21", "--pay-serving", "--serve-tokens", "1e300"], "serve_flops_tokens: input should be"),
    (["plan", "--flops", "1e21", "--hardware", "h100", "--serve-tokens", "1e300"], "tokens: must be above 0 and at"),
    (["plan", "--flops", "1e21", "--hardware", "h100", "--serve-tokens", "-1"], "--serve-tokens: input should be"),
    (["plan", "--flops", "1e21", "--hardware", "h100", "--prompt", "1e300"], "--prompt: input should be"),
    (["plan", "--flops", "1e21", "--hardware", "h100", "--serve-gpus", "1e300"], "gpus: must be above 0 and at most"),
    (
        ["plan", "--flops", "1e21", "--hardware", "h100", "--gpu-price", "1e300"],
        "--gpu-price: input should be less than",
    ),
    (["plan", "--flops", "1e21", "--hardware", "h100", "--gpu-price", "nan"], "--gpu-price: expected a number"),
    (["plan", "--gpus", "1e300", "--days", "3", "--train-hardware", "h100"], "gpus: must be above 0 and at most 1M"),
    (["plan", "--gpus", "8", "--days", "1e300", "--train-hardware", "h100"], "days: must be above 0 and at most 3650"),
    (["plan", "--flops", "1e21", "--seq-len", "1e300"], "--seq-len: must be above 0 and at most 1B"),
    (["plan", "--flops", "1e21", "--unique-tokens", "1"], "unique_tokens 1: less than one sequence of 4,096 tokens"),
    (["plan", "--flops", "1e21", "--max-memory", "1"], "max_memory 1 B: no design fits; the nearest feasible value is"),
    (["plan", "--flops", "1e21", "--max-params", "nan"], "--max-params: expected a number such as"),
    (["plan", "--flops", "1e21", "--top", "1001"], "--top: must be 1 to 1000"),
    (["plan", "--flops", "1e21", "--space", "missing.yaml"], "space: no such file: missing.yaml"),
    (["serving", "llama3-8b", "--hardware", "missing.yaml"], "hardware: no such file: missing.yaml"),
    (["serving", "llama3-8b", "--hardware", "h100", "--tables", "missing.yaml"], "latency table: no such file"),
    (["serving", "llama3-8b", "--hardware", "h100", "--prompt", "1e300"], "prompt: input should be less than or equal"),
    (["serving", "llama3-8b", "--hardware", "h100", "--gpus", "1e300"], "gpus: must be above 0 and at most 1M"),
    (["serving", "llama3-8b", "--hardware", "h100", "--gpu-price", "1e300"], "--gpu-price: must be 0 to 1,000,000"),
    (["compare", "olmoe-1b-7b", "--flops", "1e300"], "flops: must be above 0 and at most 1e30"),
    (["compare", "olmoe-1b-7b", "--seq-len", "1e300"], "--seq-len: must be above 0 and at most 1B"),
    (["compare", "olmoe-1b-7b", "--unique-tokens", "0"], "--unique-tokens: must be above 0 and at most 1e18"),
    (["count", "llama3-8b", "--seq-len", "1e300"], "--seq-len: must be above 0 and at most 1B"),
    (["laws", "abnar2025", "--optimum", "--flops", "1e300"], "flops: must be above 0 and at most 1e30"),
    (["laws", "deepseek2024", "--optimum", "--flops", "-1"], "--flops: must be above 0 and at most 1e30"),
    (
        ["predict", "hoffmann2022", "--config", "llama3-8b", "--tokens", "1e300"],
        "tokens: must be above 0 and at most",
    ),
    (["serving", "llama3-8b", "--hardware", "h100", "--tpot", "1us"], "tpot: 0.001 ms cannot be met"),
    (["serving", "llama3-8b", "--hardware", "h100", "--batch", "0"], "batch"),
    (["serving", "llama3-8b", "--hardware", "h100", "--gpu-price", "-1"], "--gpu-price"),
    (["compare", "llama3-8b"], "is dense; give a second design"),
    (["compare", "olmoe-1b-7b", "llama3-8b", "--equal", "params"], "equal params: the designs differ"),
    (["compare", "olmoe-1b-7b", "--equal", "tokens"], "the dense baseline of one design can equal it in params, flops"),
    (["compare", "olmoe-1b-7b", "--equal", "colour"], "no such quantity 'colour'"),
    (["count", "gpt-5"], "no file, folder or preset"),
    (["count", "llama3-8b", "--seq-len", "0"], "--seq-len: must be above 0 and at most 1B, got 0"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words)[:60] for words, _ in BAD])
def test_bad_input_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_plan_near_a_model_within_limits_on_tokens(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The model itself and one step around it; `--space` would contradict it."""
    sizes = {"vocab_size": 512, "d_model": 128, "n_layers": 4, "n_heads": 4, "rope_theta": 5e5}
    moe = {"n_experts": 8, "top_k": 2, "d_expert": 64}
    path = tmp_path / "model.yaml"
    ModelConfig.parse({**sizes, "moe": moe}).to_yaml(path)
    words = ("plan", "--flops", "1e17", "--near", str(path), "--law", "ludziejewski2025", "--extrapolate", "--json")
    limits = ("--min-tokens-per-active", "30", "--max-tokens-per-active", "50", "--min-tokens-per-total", "5")
    code, out, _ = run(capsys, *words, *limits)
    best = json.loads(out)["candidates"][0]
    assert code == 0
    assert best["config"]["rope_theta"] == 5e5
    assert 30 <= best["tokens"] / best["params_active"] <= 50 * (1 + 1e-9)
    assert best["tokens"] / best["params_total"] >= 5
    code, _, error = run(capsys, *words, "--space", "space.yaml")
    assert (code, error) == (2, "error: --near: contradicts --space; give one of them\n")
