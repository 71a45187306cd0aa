"""Who takes what: against counting by hand, for every kind of router, and from the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moelab.architecture import ModelConfig
from moelab.cli import main
from moelab.data import Dataset
from moelab.data.classes import CLASSES, class_of, token_classes, token_texts
from moelab.errors import InputError
from moelab.evaluation.expert_statistics import co_activation, known_from, lift, typical
from moelab.evaluation.specialisation import measure
from moelab.model import build_model
from moelab.report.figures_routing import specialisation
from moelab.report.save import figure_svg
from moelab.runs import RunConfig
from moelab.training import resolve_run, train_run

MODEL = {"vocab_size": 300, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32}
MOE = {"n_experts": 4, "top_k": 2, "d_expert": 8}
ROUTERS: list[dict[str, Any]] = [
    {},
    {"router": "hash"},
    {"router": "expert_choice", "group_size": 4},
    {"router": "mixture_of_tokens", "group_size": 2},
    {"router": "soft", "grouping": "sequence", "group_size": 16},
]


def model(**moe: Any) -> Any:
    return build_model(ModelConfig.parse({**MODEL, "moe": {**MOE, **moe}}), seed=0)


@pytest.mark.parametrize(
    "moe", [*ROUTERS[:2], *(pytest.param(router, marks=pytest.mark.slow) for router in ROUTERS[2:])], ids=str
)
def test_every_token_is_used_once_in_every_layer(moe: dict[str, Any], dataset: Dataset) -> None:
    found = measure(model(**moe), dataset, seq_len=16, max_tokens=512)
    for layer in found.layers:
        assert layer.by_token.sum() == pytest.approx(layer.by_source.sum())
        assert layer.load.sum() == pytest.approx(1)
        assert layer.by_token.sum() <= found.tokens * (1 + 1e-6)
        if moe.get("router") != "expert_choice":
            assert layer.by_token.sum() == pytest.approx(found.tokens)
        assert np.allclose(layer.together, layer.together.T)
        assert found.by_class(layer).sum() == pytest.approx(layer.by_token.sum())
    assert figure_svg(specialisation(found.to_dict())).startswith("<svg")


def test_hash_experts_are_known_from_the_token_alone(dataset: Dataset) -> None:
    hashed = measure(model(router="hash", top_k=1), dataset, seq_len=16, max_tokens=2048).to_dict()["layers"][0]
    random = measure(model(router="random", top_k=1), dataset, seq_len=16, max_tokens=2048).to_dict()["layers"][0]
    assert hashed["known_from_token"] > 0.95
    assert random["known_from_token"] < hashed["known_from_token"] - 0.3
    assert random["known_from_class"] < 0.1


def test_two_experts_for_every_token_leave_nothing_unknown(dataset: Dataset) -> None:
    hashed = measure(model(router="hash"), dataset, seq_len=16, max_tokens=2048)
    assert hashed.layers[0].own_entropy == pytest.approx(np.log(2))
    assert hashed.to_dict()["layers"][0]["known_from_token"] > 0.95


def test_known_from() -> None:
    assert known_from(np.eye(4) * 1000) == pytest.approx(1, abs=0.01)
    assert known_from(np.full((6, 4), 50.0)) == pytest.approx(0, abs=0.01)
    assert known_from(np.array([[3.0], [4.0]])) == 0
    noise = np.random.default_rng(0).multinomial(2000, np.full(400, 1 / 400)).reshape(100, 4).astype(float)
    assert known_from(noise) < 0.05


def test_lift_typical_rows_and_pairs() -> None:
    uses = np.array([[30.0, 10], [10, 30], [10, 10], [0, 0]])
    assert lift(uses)[0].tolist() == pytest.approx([1.5, 0.5])
    assert np.isnan(lift(uses)[3]).all()
    assert typical(uses, 0, 5) == [(0, pytest.approx(0.6), pytest.approx(1.5))]
    assert typical(np.zeros((2, 2)), 0, 5) == []


def test_pairs_at_random_have_a_lift_of_one() -> None:
    for loads in ([1.0, 1, 1, 1, 1], [1.0, 2, 3, 4, 5]):
        pairs = co_activation(np.outer(loads, loads))
        assert np.isnan(np.diag(pairs)).all()
        assert pairs[~np.eye(5, dtype=bool)] == pytest.approx(np.ones(20), abs=1e-6)
    together = np.ones((4, 4)) + 3 * np.kron(np.eye(2), np.ones((2, 2)))
    assert co_activation(together)[0, 1:] == pytest.approx([2, 0.5, 0.5])
    # of three experts the loads alone decide the pairs
    assert co_activation(np.array([[9.0, 4, 1], [4, 9, 1], [1, 1, 9]]))[0, 1] == pytest.approx(1, abs=1e-3)
    assert np.isnan(co_activation(np.diag([3.0, 2]))).all()


def test_nobody_works_with_all_alike(dataset: Dataset) -> None:
    found = measure(model(router="mixture_of_tokens", group_size=2), dataset, seq_len=16, max_tokens=512)
    assert [expert["partner"] for expert in found.to_dict()["layers"][0]["experts"]] == [None] * 4


def test_what_a_token_is() -> None:
    kinds = {b" the": "word", b"ing": "word piece", b"The": "capitalised word", b" 19": "number", b".": "punctuation"}
    kinds |= {b"\n": "space", "é".encode(): "not ASCII", b"\xc3": "not ASCII", b"it's": "word piece"}
    assert {raw: class_of(raw) for raw in kinds} == kinds


def test_tokens_of_the_data(dataset: Dataset) -> None:
    texts, classes = token_texts(dataset), token_classes(dataset)
    assert len(texts) == len(classes) == dataset.vocab_size
    assert CLASSES[classes[dataset.manifest.end_of_text]] == "end of text"
    assert CLASSES[classes[texts.index(" t")]] == "word"


def test_a_dense_model_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="this model is dense"):
        measure(build_model(ModelConfig.parse(MODEL)), dataset, seq_len=16, max_tokens=64)


def test_command(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = {"tokens": 256, "seq_len": 16, "batch_tokens": 64, "eval_tokens": 64, "evaluations": 1, "threads": 1}
    data = {"path": str(dataset.folder)}
    config = resolve_run(RunConfig.parse({"model": {**MODEL, "moe": MOE}, "data": data, "train": train}), dataset)
    record = train_run(config, tmp_path / "runs", dataset)
    folder = str(tmp_path / "runs" / record.run_id)
    for options in (["--json"], ["--out", str(tmp_path / "experts.svg"), "--top", "3"]):
        with pytest.raises(SystemExit) as stop:
            main(["routing", folder, "--tokens", "500", *options])
        assert not stop.value.code
        printed = capsys.readouterr().out
        if options == ["--json"]:
            assert len(json.loads(printed)["layers"][0]["experts"]) == 4
    assert "tokens it takes above all" in printed
    assert (tmp_path / "experts.svg").read_text().startswith("<svg")
    copy = Path(shutil.copytree(dataset.folder, tmp_path / "copy"))
    tokens = np.fromfile(copy / "validation_00000.bin", dtype="<u2")
    tokens[3] ^= 1
    tokens.tofile(copy / "validation_00000.bin")
    with pytest.raises(SystemExit):
        main(["routing", folder, "--data", str(copy)])
    assert "validation_00000.bin was changed" in capsys.readouterr().err
