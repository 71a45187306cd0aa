"""Every public object is short as text and a well-formed, escaped table as HTML."""

import importlib
import pkgutil
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import moelab
from moelab.notebook import MOST, Shown, html_table, interval_text, short_repr

EVIL = "<script>alert('&')</script>"


class Balanced(HTMLParser):
    """Raises where a tag closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(shown: Any) -> str:
    assert len(repr(shown)) <= MOST, type(shown)
    assert repr(shown).startswith(f"{type(shown).__name__}(")
    assert "\n" not in repr(shown)
    text = str(shown._repr_html_())
    parser = Balanced()
    parser.feed(text)
    assert not parser.open
    ElementTree.fromstring(f"<all>{text}</all>")
    assert "<table" in text
    return text


RUNS = {"params_total": [1e7, 2e7, 4e7, 8e7] * 5, "tokens": [1e8] * 4 + [4e8] * 4 + [2e9] * 4 + [8e9] * 4 + [1e10] * 4}


@pytest.fixture(scope="module")
def comparison() -> Any:
    law = moelab.get_law("besiroglu2024")
    table = {name: np.array(values) for name, values in RUNS.items()}
    noise = 1 + 0.002 * np.random.default_rng(0).standard_normal(20)
    loss = law.loss(None, table) * noise
    return moelab.compare_laws({**table, "loss": loss}, ["besiroglu2024"], holdout=0.2, bootstrap=20, starts=2)


@pytest.fixture(scope="module")
def plan() -> Any:
    space = moelab.Space(d_model=[512, 768, 1024], n_experts=[8, 32])
    return moelab.plan(moelab.Budget(flops=1e19, max_params="1B"), space=space)


def test_fits(comparison: Any) -> None:
    fitted = comparison.fits["besiroglu2024"]
    assert "held-out error" in check(comparison)
    assert "alpha" in check(fitted)
    check(fitted.holdout)
    check(fitted.law)
    check(fitted.predict(params_total=1e8, tokens=1e9))
    many = fitted.predict({"params_total": np.full(500, 1e8), "tokens": np.linspace(1e9, 9e9, 500)})
    assert "500 designs" in check(many)
    check(moelab.predict(fitted, params_total=1e8, tokens=1e9))


def test_plans(plan: Any) -> None:
    text = check(plan)
    assert plan.best.experts in text
    assert "excess compute" in text
    for each in (plan.best, plan.budget, plan.space, plan.best.config, *plan.best.loss.values()):
        check(each)
    check(moelab.compare(plan.best.config, flops=1e19))
    side = moelab.compare(plan.best.config, flops=1e19).sides[0]
    assert len(repr(side)) <= MOST


def test_counts_and_serving() -> None:
    from moelab.serving import Traffic, catalogue, serve

    counted = moelab.count("mixtral-8x7b")
    for each in (counted, counted.params, counted.flops, moelab.serving_cost("mixtral-8x7b", "h100")):
        check(each)
    model = moelab.load_model("mixtral-8x7b")
    for shown in (serve(model, Traffic(), catalogue()["h100"]), Traffic(), catalogue()["h100"], model):
        check(shown)


def test_isoflop() -> None:
    x = np.linspace(1, 5, 9)
    check(moelab.isoflop_slice(x, (x - 3) ** 2 * 0.1 + 2, name=EVIL))
    rng = np.random.default_rng(0)
    params, sparsity = np.exp(rng.uniform(17, 21, 40)), rng.uniform(0, 0.95, 40)
    loss = 2 + 0.05 * (np.log(params) - 19) ** 2 + 0.1 * (-np.log(1 - sparsity) - 1) ** 2
    check(moelab.isoflop_surface(params, sparsity, loss, subsamples=10))


def test_runs(make_run: Callable[..., Any], tiny_dataset: Any, tmp_path: Any) -> None:
    from moelab.data.prepare import Prepared
    from moelab.studies import StudyConfig
    from moelab.training import train_run

    config = make_run(tokens=64 * 4).replace(name=EVIL)
    check(config)
    check(config.train)
    record = train_run(config, tmp_path, tiny_dataset)
    assert "&lt;script&gt;" in check(record)
    check(Prepared(tiny_dataset, True))
    study = {"name": "s", "title": "t", "data": {"sources": ["texts"]}, "base": {}, "runs": [{"name": "a"}]}
    check(StudyConfig.parse(study))


def test_an_outcome(make_run: Callable[..., Any], tiny_dataset: Any, tmp_path: Any) -> None:
    from moelab.studies import StudyConfig, StudyOutcome
    from moelab.studies.analysis import Analysis
    from moelab.studies.folder import StudyFolder
    from moelab.training import train_run

    config = make_run(tokens=64 * 4)
    record = train_run(config, tmp_path, tiny_dataset)
    study = {"name": "s", "title": EVIL, "data": {"sources": ["texts"]}, "base": {}, "runs": [{"name": "a"}]}
    outcome = StudyOutcome(
        study=StudyConfig.parse(study),
        folder=StudyFolder(tmp_path),
        sweep=None,
        stages=[],
        trained=[(config, record)] * 60,
        noise=None,
        findings=[],
        analysis=Analysis(table=None, comparison=None, plan=None),
        verified=[],
        verdict=None,
        answer=["word " * 200],
        seconds=1.0,
    )
    assert EVIL not in check(outcome)


def shown_classes() -> list[type]:
    pytest.importorskip("torch")
    for module in pkgutil.walk_packages(moelab.__path__, "moelab."):
        if not module.name.endswith("__main__"):
            with suppress(ModuleNotFoundError):  # kernels for devices need packages that not every machine has
                importlib.import_module(module.name)
    return [each for each in Shown.__subclasses__() if each.__module__.startswith("moelab.")]


def test_no_dataclass_writes_its_own_long_text() -> None:
    classes = shown_classes()
    assert len(classes) > 20
    for each in classes:
        assert each.__repr__.__qualname__ != "__create_fn__.<locals>.__repr__", each
        assert not each.__dataclass_params__.repr, each  # type: ignore[attr-defined]


def test_text_is_cut_and_counted() -> None:
    assert short_repr(EVIL, a=1, b=0.123456789) == "str(a=1, b=0.123457)"
    assert len(short_repr(EVIL, **{f"name{i}": "x" * 70 for i in range(20)})) == MOST
    assert short_repr(EVIL, a=np.zeros((3, 4)), b=list(range(100))) == "str(a=array(3, 4), b=<100 entries>)"
    assert [interval_text(2.0), interval_text(None), interval_text(2, 1.5, 2.5)] == ["2", "-", "2 [1.5, 2.5]"]


def test_html_is_escaped() -> None:
    text = html_table([EVIL], [[EVIL]], title=EVIL, note=EVIL)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 4
