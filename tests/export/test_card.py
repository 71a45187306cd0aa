"""Model cards state what the record, the manifest and the study hold, and nothing that was not measured."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moelab.architecture import count_parameters
from moelab.export import Source, card, choose_family
from moelab.export.card import model_card
from moelab.export.check import Check
from moelab.export.source import find_study
from moelab.model import LanguageModel
from moelab.studies import load_study

MakeSource = Callable[[LanguageModel], Source]
MakeModel = Callable[[str], LanguageModel]
CHECK = Check(
    library="transformers 5.23.0", difference=2.5e-6, tolerance=5e-5, tokens=1024, compared=1000, loss_trained=2.0,
    loss_exported=2.0,
)  # fmt: skip


def card_of(source: Source, check: Check | None = CHECK, notes: tuple[str, ...] = ()) -> str:
    return model_card(source, choose_family(source.model.config), "fp32", check, "--no-check", notes)


@pytest.fixture(autouse=True)
def _quick_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "_TRIALS", 1)


def test_numbers_are_the_records(make_source: MakeSource, make_model: MakeModel) -> None:
    source = make_source(make_model("qwen3_moe"))
    counts, text = count_parameters(source.model.config), card_of(source)
    for number in (counts.params_total, counts.params_active, counts.params_non_embedding, source.record.tokens):
        assert f"{number:,}" in text
    assert "2.5000 nats per token" in text
    assert "bits per byte | 1.2500" in text
    assert "8 of width 16, 2 per token" in text
    for each in source.dataset.manifest.sources:
        assert f"| {each.name} |" in text
        assert each.licence in text


def test_a_lossy_tokenizer_is_noted_beside_bits_per_byte(
    make_source: MakeSource, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_source(make_model("llama"))
    assert "the tokenizer changed" not in card_of(source)
    note = "data: the tokenizer changed 3 texts (a for A): bits per byte cannot be compared with others"
    monkeypatch.setattr(type(source.dataset), "notes", lambda self: [note])
    assert f"{note}." in card_of(source)


def test_the_check_is_reported(make_source: MakeSource, make_model: MakeModel) -> None:
    source = make_source(make_model("llama"))
    text = card_of(source)
    assert "on 1,000 of 1,024 held-out tokens" in text
    assert "2.5e-06; 5.0e-05 would pass" in text
    assert "It was not compared with the trained model (--no-check)" in card_of(source, None)
    assert "- folded." in card_of(source, notes=("folded",))


def test_leaks_in_training_and_a_leak_free_export_are_reported(make_source: MakeSource, make_model: MakeModel) -> None:
    clean = make_source(make_model("mixtral"))
    assert "The same holds for training." in card_of(clean)
    leaky = make_source(make_model("mixtral-capacity"))
    leaky = replace(leaky, record=leaky.record.replace(loss_leak_free=2.25))
    text = card_of(leaky)
    assert "In training it could leak" in text
    assert "loss leak-free (what is exported) | 2.2500" in text


def test_the_study_and_its_prediction_stand_in_the_card(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    source = make_source(make_model("llama"))
    assert find_study(source) is None
    row: dict[str, Any] = {
        "role": "recommended", "run_id": source.run_id, "measured": 2.5,
        "predicted": {"hoffmann2022": {"value": 2.4, "low": 2.3, "high": 2.6}},
    }  # fmt: skip
    load_study("quickstart").to_yaml(tmp_path / "study.yaml")
    (tmp_path / "verify.json").write_text(json.dumps([row]))
    placed = replace(source, folder=tmp_path / "runs" / source.run_id)
    found = find_study(placed)
    assert found is not None
    text = card_of(placed)
    assert f'trained in the study "{found.name}"' in text
    assert "| hoffmann2022 | 2.4000 | 2.3000 to 2.6000 |" in text
    (tmp_path / "verify.json").write_text("[")
    assert find_study(placed) is None


def test_names_and_licences_are_text(make_source: MakeSource, make_model: MakeModel, tmp_path: Path) -> None:
    """No link, no HTML, no column and no line of theirs stands in the card."""
    name = "[a](http://evil.example)<script>|\n## b `c`\u202e\x1b[2J"
    shown = r"\[a\](http://evil.example)\<script\>\|\\n## b \`c\`\\u202e\\x1b\[2J"
    source = make_source(make_model("llama"))
    manifest = source.dataset.manifest
    sources = [each.to_dict() | {"name": name, "licence": name, "version": name} for each in manifest.sources]
    dataset = SimpleNamespace(manifest=manifest.replace(sources=sources), notes=list)
    named = {"config": source.config.replace(name=name, labels={name: name}), "dataset": dataset}
    named["record"] = source.record.replace(loss_by_source={name: 2.0})
    study = load_study("quickstart").replace(title=name, about=name)
    study.to_yaml(tmp_path / "study.yaml")
    placed = replace(source, folder=tmp_path / "runs" / source.run_id, **named)
    text = card_of(placed)
    assert text.count(shown) == 3 * len(sources) + 5  # title, loss by source, study, label and its value
    assert not {"\u202e", "\x1b"} & set(text)
    assert "<script>" not in text
    assert len([line for line in text.splitlines() if line.startswith("## ")]) == 9
    assert not {"\u202e", "\x1b", "\n"} & set(card.description(placed))


@pytest.mark.parametrize("name", ["qwen2_moe-gated", "glm-bias-scaled-dense", "ernie-shared-dense"])
def test_shared_experts_and_balance_are_described(name: str, make_source: MakeSource, make_model: MakeModel) -> None:
    source = make_source(make_model(name))
    moe = source.model.config.moe
    assert moe is not None
    text = card_of(source)
    assert f"together of width {moe.d_shared}" in text
    assert ("weighed by a gate" in text) == bool(moe.shared_gate)
    assert ("a bias per expert" in text) == bool(moe.bias_update)
    assert (f"times {moe.routed_scaling:g}" in text) == (moe.routed_scaling != 1)
