"""Exported folders: transformers loads them without our code and computes our logits; failures leave nothing behind."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moelab.data.tokenizer import load_tokenizer
from moelab.errors import InputError, MoelabError
from moelab.export import Source, card, export_hugging_face, huggingface
from moelab.export.place import NOTE
from moelab.model import LanguageModel, leak_free

MakeSource = Callable[[LanguageModel], Source]
MakeModel = Callable[[str], LanguageModel]


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leak certificate in the model card takes longer than all the rest, and has tests of its own."""
    monkeypatch.setattr(card, "_leak", lambda _: "")


@pytest.fixture
def transformers() -> Any:
    """The library; a test that takes it first is skipped before anything is built."""
    return pytest.importorskip("transformers")


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@torch.no_grad()
def test_transformers_computes_our_logits(
    transformers: Any, case: tuple[str, LanguageModel], make_source: MakeSource, tmp_path: Path
) -> None:
    kind, model = case
    export_hugging_face(make_source(model), tmp_path / "out", check=False)
    theirs, found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert theirs.config.model_type == kind
    assert not any(found.values())
    tokens = torch.arange(48).view(2, 24) * 11 % 300
    with leak_free(model):
        torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_scaled_positions_go_with_every_class_that_lists_them(
    transformers: Any, scaled_case: tuple[str, LanguageModel], make_source: MakeSource, tmp_path: Path
) -> None:
    kind, model = scaled_case
    export_hugging_face(make_source(model), tmp_path / "out", check=False)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert theirs.config.model_type == kind
    tokens = torch.arange(48).view(2, 24) * 11 % 300
    torch.testing.assert_close(theirs(tokens).logits, model(tokens), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_generation_with_a_cache_continues_as_ours(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    from moelab.model.generate import generate

    model = make_model("qwen3_moe")
    export_hugging_face(make_source(model), tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    prompt = [5, 9, 200, 31]
    ours = generate(model, [prompt], max_new_tokens=12, temperature=0)
    found = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=-1)
    assert found[0, 4:].tolist() == ours[0]


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_reduced_precision_is_compared_with_the_rounded_weights(
    dtype: str, make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    done = export_hugging_face(make_source(make_model("qwen2_moe-ungated-head")), tmp_path / "out", dtype=dtype)
    assert done.check is not None
    assert done.check.difference < 1e-5
    assert done.check.loss_exported != done.check.loss_trained
    kinds = {name: tensor.dtype for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items()}
    assert kinds["model.layers.0.mlp.gate.weight"] == torch.float32
    assert kinds["model.layers.0.mlp.experts.0.up_proj.weight"] == {"bf16": torch.bfloat16, "f16": torch.float16}[dtype]


def test_the_tokenizer_is_the_runs(make_source: MakeSource, make_model: MakeModel, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    source = make_source(make_model("llama"))
    export_hugging_face(source, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = load_tokenizer(source.dataset.tokenizer_path)
    for text in ("the cat sat on a mat", "  Tabs\tand\nlines, naïve café 12345", ""):
        assert theirs(text).input_ids == ours.encode(text, add_special_tokens=False).ids
        assert theirs.decode(theirs(text).input_ids) == text
    assert theirs.eos_token_id == theirs.bos_token_id == source.dataset.manifest.end_of_text


def test_a_wrong_export_is_noticed_and_nothing_stays(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    right = huggingface.hugging_face_tensors

    def swapped(*arguments: Any) -> Any:
        tensors = right(*arguments)
        names = [f"model.layers.1.mlp.experts.3.{part}_proj.weight" for part in ("gate", "up")]
        tensors[names[0]], tensors[names[1]] = tensors[names[1]], tensors[names[0]]
        return tensors

    monkeypatch.setattr(huggingface, "hugging_face_tensors", swapped)
    with pytest.raises(MoelabError, match=r"differs from the trained one: by transformers .* nothing was kept"):
        export_hugging_face(make_source(make_model("qwen3_moe")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tensor_is_noticed(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    right = huggingface.hugging_face_tensors

    def without(*arguments: Any) -> Any:
        return {name: tensor for name, tensor in right(*arguments).items() if name != "model.norm.weight"}

    monkeypatch.setattr(huggingface, "hugging_face_tensors", without)
    with pytest.raises(MoelabError, match=r"wrong tensors .*model\.norm\.weight"):
        export_hugging_face(make_source(make_model("llama")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_transformers_it_reports_that_nothing_was_checked(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface, "transformers_version", lambda: None)
    done = export_hugging_face(make_source(make_model("llama")), tmp_path / "out")
    assert done.check is None
    assert done.unchecked == "transformers is not installed"
    assert (
        "It was not compared with the trained model (transformers is not installed)"
        in (tmp_path / "out" / "README.md").read_text()
    )


def test_only_an_earlier_export_is_replaced_and_only_by_force(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path
) -> None:
    source, out = make_source(make_model("llama")), tmp_path / "out"

    def again(force: bool = False) -> None:
        export_hugging_face(source, out, force=force, check=False)

    again()
    with pytest.raises(InputError, match="earlier export; --force"):
        again()
    (out / "config.json").write_text("{}")
    again(force=True)
    assert json.loads((out / "config.json").read_text())["model_type"] == "llama"
    (out / "my notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"no export wrote .my notes\.txt"):
        again(force=True)
    (out / NOTE).unlink()
    with pytest.raises(InputError, match="other files"):
        again(force=True)
    assert (out / "my notes.txt").read_text() == "mine"
    shutil.rmtree(out)
    out.write_text("a file")
    with pytest.raises(InputError, match="not a folder"):
        again(force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_leaves_the_earlier_export(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = make_source(make_model("llama")), tmp_path / "out"
    export_hugging_face(source, out, check=False)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface, "save_weights", full)
    with pytest.raises(MoelabError, match="No space left"):
        export_hugging_face(source, out, force=True, check=False)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_export_left_is_removed(make_source: MakeSource, make_model: MakeModel, tmp_path: Path) -> None:
    left = tmp_path / ".out.abc.part"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    export_hugging_face(make_source(make_model("llama")), tmp_path / "out", check=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_rewriting_that_changes_the_function_is_noticed(
    make_source: MakeSource, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison is with the trained model, not with what was made of it."""
    pytest.importorskip("transformers")
    right = huggingface.canonical

    def wrong(*arguments: Any) -> LanguageModel:
        model = right(*arguments)
        with torch.no_grad():
            model.model.layers[2].mlp.experts.down_proj *= 1.001
        return model

    monkeypatch.setattr(huggingface, "canonical", wrong)
    with pytest.raises(MoelabError, match="differs from the trained one"):
        export_hugging_face(make_source(make_model("mixtral-scaled-head")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
