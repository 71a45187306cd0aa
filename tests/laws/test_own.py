"""Laws of one's own: formulas are checked trees with exact derivatives, and files are read back by what they hold."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import moelab
from moelab.cli import main
from moelab.errors import InputError
from moelab.fitting import load_fits, save_fits
from moelab.fitting.columns import variable
from moelab.laws import catalogue, get_law
from moelab.laws.formula_tree import evaluate, parse_formula
from moelab.laws.law_keys import law_from_formula
from moelab.laws.own import load_law, register_law

FORMULA = (
    "E_0 + (a + g / granularity**gamma) / params_active**alpha + b / tokens**beta + k * log(granularity) * log(rate)"
)
GIVEN = {
    "id": "mine2026",
    "formula": FORMULA,
    "variables": ["params_active", "tokens", "granularity", "rate"],
    "starts": {"alpha": [0.05, 1], "beta": [0.05, 1], "gamma": [0.1, 1.5]},
    "bounds": {"k": [-1, 1]},
    "range": {"tokens": [1e9, 1e11]},
}
TRUE = {"E_0": 1.5, "a": 20, "g": 3, "gamma": 0.6, "alpha": 0.2, "b": 30, "beta": 0.18, "k": -0.02}


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laws registered by a test are forgotten after it."""
    monkeypatch.setattr(catalogue, "_OWN", {})


def runs(noise: float = 0.003, count: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    table = {
        "params_active": 10 ** rng.uniform(7.5, 9.5, count),
        "tokens": 10 ** rng.uniform(9.5, 11.5, count),
        "granularity": 2.0 ** rng.integers(0, 6, count),
        "rate": rng.choice([0.05, 0.1, 0.2, 0.5], count),
    }
    loss = law_from_formula(GIVEN).loss(TRUE, table)
    return {**table, "loss": loss * np.exp(noise * rng.standard_normal(count))}


@pytest.mark.parametrize(
    "text",
    [FORMULA, "exp(a) * min(b, tokens / 1e9) ** -c + max(a, 2)", "-(a - b) ** 2 / +tokens", "log(a + b * tokens)"],
)
def test_derivatives_equal_the_complex_step(text) -> None:
    rng = np.random.default_rng(1)
    tree = parse_formula(text)
    values = {name: rng.uniform(1, 3, 5) for name in tree.names()}
    coefficients = frozenset(name for name in values if name not in ("tokens", "params_active", "granularity", "rate"))
    value, slopes = evaluate(tree, values, coefficients)
    for name in coefficients:
        stepped = evaluate(tree, {**values, name: values[name] + 1e-20j}, coefficients)[0]
        expected = np.imag(np.broadcast_to(stepped, np.shape(value))) / 1e-20
        assert np.allclose(slopes.get(name, 0.0), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", "not allowed"),
        ("open(a)", "no function 'open'"),
        ("a.real", "'a.real' is not allowed"),
        ("E + A / params_total^alpha + 0 * log(params_total * params_total)", r"a power is \*\*, not \^, in '.*\.\.\."),
        ("a[0]", "not allowed"),
        ("[a for a in b]", "not allowed"),
        ("a if b else c", "not allowed"),
        ("lambda: a", "not allowed"),
        ("a & b", "not allowed"),
        ("a and b", "not allowed"),
        ("'text'", "not allowed"),
        ("True", "not allowed"),
        ("log(a, b)", "log takes 1 values, got 2"),
        ("min(a)", "min takes 2 values"),
        ("a +", "not an expression"),
        ("(" * 900 + "a" + ")" * 900, "not an expression"),
        ("a" + " + a" * 600, "at most 1,000 numbers, names and signs"),
        ("a" * 5000, "at most 4,000 characters"),
        ("", "expected a text"),
    ],
)
def test_formulas_hold_nothing_else(text, message) -> None:
    with pytest.raises(InputError, match=message):
        parse_formula(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formula": None}, "formula: expected a text"),
        ({"colour": 1}, "colour: unknown; allowed: id"),
        ({"variables": ["params_active", "tokens", "granularity", "rate", "n"]}, "formula: has no n"),
        ({"starts": {"alpha": [0.05, 1]}}, "starts: give gamma, beta a range"),
        ({"starts": {**GIVEN["starts"], "zeta": [0, 1]}}, "starts: zeta is none of"),
        ({"bounds": {"alpha": [1, 0]}}, "bounds: alpha: expected low below high"),
        ({"bounds": [1]}, "bounds: expected NAME"),
        ({"id": "hoffmann2022"}, "is taken by a published law"),
        ({"id": "../x"}, "expected an id"),
    ],
)
def test_wrong_law_files_are_refused(change, message) -> None:
    with pytest.raises(InputError, match=message):
        register_law({**GIVEN, **change})


def test_a_law_by_formula_is_fitted_saved_and_read_back(tmp_path) -> None:
    law = register_law(GIVEN)
    assert law.linear == ("E_0", "a", "g", "b", "k")
    assert "k" not in law.positive
    fitted = moelab.fit(runs(), "mine2026", bootstrap=20, starts=64)
    ends = fitted.interval("k")
    assert fitted.coefficients["k"] == pytest.approx(-0.02, abs=0.005)
    assert ends["high"] < 0
    save_fits({law.id: fitted}, tmp_path / "fit.json")
    catalogue._OWN.clear()
    again = load_fits(tmp_path / "fit.json")["mine2026"]
    design = {"params_active": 1e9, "tokens": 1e11, "granularity": 8, "rate": 0.1}
    assert again.predict(**design).value == fitted.predict(**design).value
    assert again.law.ranges["tokens"] == (1e9, 1e11)


PYTHON = """
from dataclasses import replace
from moelab.laws import get_law
LAW = replace(get_law("hoffmann2022"), id="python2026")
"""


def test_a_python_law_is_run_when_named_and_asked_for_again(tmp_path) -> None:
    path = tmp_path / "law.py"
    path.write_text(PYTHON)
    law = register_law(path)
    table = {name: values for name, values in runs(count=30).items() if name in ("tokens", "loss")}
    table["params_total"] = runs(count=30)["params_active"]
    save_fits({law.id: moelab.fit(table, law, bootstrap=0, starts=16)}, tmp_path / "fit.json")
    assert load_fits(tmp_path / "fit.json")
    catalogue._OWN.clear()
    with pytest.raises(InputError, match="give it by --law-file"):
        load_fits(tmp_path / "fit.json")
    path.write_text(PYTHON + "\n")
    register_law(path)
    with pytest.raises(InputError, match="another version of"):
        load_fits(tmp_path / "fit.json")
    path.write_text("1 / 0")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        load_law(path)


FUNCTION = """
def loss(c, v):
    return c["E_0"] + c["A"] / v["params_total"] ** c["alpha"] + c["B"] / v["tokens"] ** c["beta"]


LAW = {
    "id": "function2026", "formula": loss, "variables": ["params_total", "tokens"],
    "coefficients": ["E_0", "A", "alpha", "B", "beta"], "starts": {"alpha": [0.05, 1], "beta": [0.05, 1]},
}
"""


def test_a_function_of_python_is_a_law_by_the_complex_step(tmp_path) -> None:
    """The same law three ways: its derivatives, its fit and what it covers agree."""
    path = tmp_path / "law.py"
    path.write_text(FUNCTION)
    law, known = load_law(path), get_law("hoffmann2022")
    assert law.linear == known.linear
    v = {"params_total": np.array([1e8, 1e9]), "tokens": np.array([1e10, 2e10])}
    c = {name: np.array([[value]]) for name, value in known.published.items()}
    value, gradient = law.formula(c, v)
    same, slopes = known.formula(c, v)
    assert value == pytest.approx(same, rel=1e-14)
    for name, slope in slopes().items():
        assert gradient()[name] == pytest.approx(np.broadcast_to(slope, value.shape), rel=1e-12)
    table = {name: values for name, values in runs(count=30).items() if name in ("tokens", "loss")}
    table["params_total"] = runs(count=30)["params_active"]
    fitted, other = (moelab.fit(table, each, bootstrap=0, starts=16) for each in (law, known))
    assert fitted.objective == pytest.approx(other.objective, rel=1e-9)
    assert not fitted.law.covers_moe  # none of its runs was a MoE model
    with pytest.raises(InputError, match="coefficients: a formula that is a function needs the list"):
        register_law({"id": "x", "formula": max, "variables": ["tokens"]})
    path.write_text(FUNCTION.replace(', "starts": {"alpha": [0.05, 1], "beta": [0.05, 1]}', ""))
    with pytest.raises(InputError, match="starts: give alpha, beta a range"):
        load_law(path)
    with pytest.raises(InputError, match="coefficients: a formula names its own"):
        register_law({**GIVEN, "coefficients": ["E_0"]})


def test_the_files_of_the_documentation_are_laws(tmp_path) -> None:
    """As printed: they load, and a design gives all that the first one reads."""
    text = (Path(__file__).parents[2] / "docs" / "fitting.md").read_text(encoding="utf-8")
    for name in ("mine.yaml", "mine.py"):
        block = re.search(rf"^```\w+\n(# {name}\n.*?)^```$", text, re.DOTALL | re.MULTILINE)
        assert block is not None
        (tmp_path / name).write_text(block[1])
    law = load_law(tmp_path / "mine.yaml")
    assert law.linear == ("E_0", "a", "g", "b", "k")
    assert law.variables_of(moelab.load_model("olmoe-1b-7b"), 1e12, published=False).covered.all()
    assert load_law(tmp_path / "mine.py").linear == ("E_0", "A", "B")


def test_a_law_reads_of_a_design_what_a_table_derives() -> None:
    """Every variable that follows from a table's columns, for models with and without shared experts."""
    names = ["activation_rate", "active_experts", "expert_activation", "shared_share", "d_model", "n_layers", "epochs"]
    law = register_law(
        {"id": "wide2026", "formula": "E + a * " + " * ".join(names), "variables": names, "starts": {"a": [0.1, 1]}}
    )
    for preset in ("olmoe-1b-7b", "deepseek-moe-16b", "mixtral-8x7b"):
        model = moelab.load_model(preset)
        count, moe = moelab.count(model).params, model.moe
        columns = {
            "n_experts": [moe.n_experts], "top_k": [moe.top_k], "d_expert": [moe.d_expert], "d_shared": [moe.d_shared],
            "params_non_embedding": [count.params_non_embedding], "tokens": [1e12], "unique_tokens": [2.5e11],
            "params_active_non_embedding": [count.params_active_non_embedding],
        }  # fmt: skip
        found = law.variables_of(model, 1e12, unique_tokens=2.5e11, published=False)
        assert found.covered.all()
        for name in ("activation_rate", "active_experts", "expert_activation", "shared_share"):
            derived = variable({key: np.array(values, float) for key, values in columns.items()}, name)
            assert found.variables[name] == pytest.approx(derived[0]), name
        assert (found.variables["d_model"], found.variables["n_layers"]) == (model.d_model, model.n_layers)
        assert found.variables["epochs"] == 4


def test_the_commands_take_a_law_file(tmp_path, capsys) -> None:
    import polars as pl
    import yaml

    law, table, out = tmp_path / "law.yaml", tmp_path / "runs.csv", tmp_path / "fit.json"
    law.write_text(yaml.safe_dump(GIVEN))
    pl.DataFrame(runs()).write_csv(table)

    def run(*words: object) -> dict:
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        assert not stop.value.code, printed.err
        return json.loads(printed.out)

    fits = run("fit", table, "--law-file", law, "--bootstrap", "20", "--starts", "32", "--out", out, "--json")["fits"]
    assert set(fits) == {"mine2026"}
    catalogue._OWN.clear()
    at = [
        word for name in ("params_active=1e9", "tokens=1e11", "granularity=8", "rate=0.1") for word in ("--set", name)
    ]
    assert run("predict", out, *at, "--json")["predictions"]["mine2026"]["loss"]["low"] is not None
    listed = run("laws", "mine2026", "--law-file", law, "--json")
    assert listed["form"] == f"L = {FORMULA}"
    assert get_law("mine2026").id == "mine2026"


DENSE = {
    "id": "dense2026",
    "formula": "E_0 + A / params_active**alpha + B / tokens**beta",
    "variables": ["params_active", "tokens"],
    "starts": {"alpha": [0.05, 1], "beta": [0.05, 1]},
    "published": {"E_0": 1.7, "A": 400, "alpha": 0.34, "B": 410, "beta": 0.28},
}


@pytest.mark.usefixtures("pages_without_library")
def test_plan_compare_and_study_take_a_law_file(tmp_path, capsys) -> None:
    import yaml

    law = tmp_path / "law.yaml"
    law.write_text(yaml.safe_dump(DENSE))

    def run(*words: object) -> tuple[int, str, str]:
        catalogue._OWN.clear()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        return int(stop.value.code or 0), *capsys.readouterr()

    sides = ("olmoe-1b-7b", "llama3-8b", "--flops", "1e22")
    code, out, error = run("compare", *sides, "--law-file", law, "--json")
    assert code == 0, error
    assert "dense2026" in out
    space = tmp_path / "space.yaml"
    space.write_text("d_model: [512]\nn_layers: [8]\nn_experts: [8]\ntop_k: [1]\nvocab_size: 32000\n")
    code, out, error = run("plan", "--flops", "1e19", "--law-file", law, "--space", space, "--json")
    assert code == 0, error
    assert "dense2026" in out
    study = tmp_path / "study.yaml"
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("The field grows wheat. " * 400)
    model = {"vocab_size": 300, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32}
    fields = {
        "name": "tiny",
        "title": "Own law",
        "data": {"sources": [str(texts)], "vocab_size": 300, "validation_share": 0.2},
        "base": {"model": model, "train": {"tokens": 1024, "seq_len": 32, "batch_tokens": 256, "eval_tokens": 256}},
        "runs": [{"name": "rates", "set": {"train.learning_rate": [0.003, 0.01]}}],
        "fit": {"laws": ["dense2026"]},
    }
    study.write_text(yaml.safe_dump(fields))
    call = ("study", study, "--out", tmp_path / "out", "--dry-run", "--json")
    code, _, error = run(*call, "--law-file", law)
    assert code == 0, error
    code, _, error = run(*call)
    assert code == 2
    assert "no such law 'dense2026'" in error
    study.write_text(yaml.safe_dump({**fields, "fit": {"laws": ["hoffmann2022"]}}))
    code, _, error = run(*call, "--law-file", law)
    assert code == 2
    assert "--law-file: dense2026 is not among the study's fit.laws (hoffmann2022)" in error


CHINCHILLA = {
    "id": "chin2026",
    "formula": "E + A / params_total**alpha + B / tokens**beta",
    "variables": ["params_total", "tokens"],
    "starts": {"alpha": [0.05, 1], "beta": [0.05, 1]},
}
PUBLISHED = {"E": 1.8, "A": 500, "alpha": 0.35, "B": 2000, "beta": 0.36}


def dense_runs(law, **more):
    rng, size = np.random.default_rng(0), np.tile(np.geomspace(1e8, 1e9, 4), 5)
    table = {"params_total": size, "tokens": np.repeat(np.geomspace(1e9, 3e10, 5), 4)}
    loss = law.loss(PUBLISHED, table) * np.exp(0.002 * rng.standard_normal(20))
    return {**table, "loss": loss, **more}


@pytest.mark.parametrize(
    ("covers", "more", "applies"),
    [
        (None, {}, False),
        (None, {"n_experts": [1, 8] * 10, "top_k": [1, 2] * 10}, True),
        (None, {"params_active": np.full(20, 5e7)}, True),
        ("both", {}, True),
        ("dense", {}, False),
    ],
)
def test_a_law_of_dense_runs_refuses_moe_models_unless_its_file_covers_them(covers, more, applies, tmp_path) -> None:
    law = law_from_formula({**CHINCHILLA} | ({} if covers is None else {"covers": covers}))
    fitted = moelab.fit(dense_runs(law, **more), law, bootstrap=0, starts=4)
    save_fits({law.id: fitted}, tmp_path / "fit.json")
    for each in (fitted, load_fits(tmp_path / "fit.json")[law.id]):
        assert each.law.covers_moe is applies
        assert moelab.predict(each, "llama3-8b", tokens="1T").only.value > 1.8
        if applies:
            assert moelab.predict(each, "mixtral-8x7b", tokens="1T").only.value > 1.8
            continue
        with pytest.raises(InputError, match=r"covers: both|describes dense models only"):
            moelab.predict(each, "mixtral-8x7b", tokens="1T")


def test_published_coefficients_of_ones_own_are_those_of_dense_models_unless_stated() -> None:
    given = {**CHINCHILLA, "published": PUBLISHED}
    with pytest.raises(InputError, match="covers: both"):
        moelab.predict(law_from_formula(given), "mixtral-8x7b", tokens="1T")
    for more in ({"covers": "both"}, {"covers": "moe"}):
        assert moelab.predict(law_from_formula({**given, **more}), "mixtral-8x7b", tokens="1T").only.value > 1.8
    with pytest.raises(InputError, match="covers: expected one of dense, moe, both, got 'all'"):
        law_from_formula({**given, "covers": "all"})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("steplaw2025", "fit_rule fits one"),
        ("hoffmann2022+resue", "did you mean 'hoffmann2022\\+reuse'"),
    ],
)
def test_an_id_that_is_no_law_names_what_is_near(name, message) -> None:
    with pytest.raises(InputError, match=message):
        get_law(name)


def test_predict_and_laws_take_what_a_fit_file_holds(tmp_path, capsys) -> None:
    law = law_from_formula(CHINCHILLA)  # not registered: the file alone knows its formula
    save_fits({law.id: moelab.fit(dense_runs(law), law, bootstrap=0, starts=4)}, tmp_path / "fit.json")
    with pytest.raises(SystemExit) as stop:
        main(["laws", law.id, "--optimum", "--flops", "1e21", "--law", str(tmp_path / "fit.json"), "--json"])
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["params_total"] > 1e8
    with pytest.raises(InputError, match="did you mean 'hoffmann2022'"):
        moelab.predict("hoffman2022", params_total=1e9, tokens=1e10)
    with pytest.raises(InputError, match="noise: hoffmann2022 has published coefficients"):
        moelab.predict("hoffmann2022", params_total=1e9, tokens=1e10, noise=True)


def test_errors_within_a_law_of_python_name_its_file(tmp_path) -> None:
    head = 'import numpy as np\nLAW = {"id": "mine-wrong", "variables": ["tokens"], "coefficients": ["E_0"], '
    head += '"starts": {}, '
    (tmp_path / "always.py").write_text(head + '"formula": lambda c, v: 1 / 0}\n')
    with pytest.raises(InputError, match=r"law-file .*always\.py: formula: ZeroDivisionError: division by zero"):
        load_law(tmp_path / "always.py").loss({"E_0": 1.0}, {"tokens": np.array([1e9])})
    (tmp_path / "later.py").write_text(head + '"formula": lambda c, v: c["E_0"] + {}[np.max(v["tokens"]) > 1e8]}\n')
    with pytest.raises(InputError, match=r"law-file .*later\.py: formula: KeyError"):
        load_law(tmp_path / "later.py").loss({"E_0": 1.0}, {"tokens": np.array([1e9])})
