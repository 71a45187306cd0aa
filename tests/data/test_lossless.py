"""A tokenizer that changes the text is refused, or named in the manifest; bytes are the documents' own."""

import json
import re
import unicodedata
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from moelab.data import Dataset, PrepareConfig, ValidationBatches, train_tokenizer
from moelab.data import lossless as lossless_module
from moelab.data.dataset import Manifest
from moelab.data.prepare import prepare
from moelab.errors import InputError

from .conftest import make_documents, write_folder


def given(path: Path, change: str) -> str:
    """A tokenizer.json whose text does not come back, in one of several ways."""
    tokenizer = train_tokenizer(make_documents(100, seed=3), 400)
    if change == "lower case":
        tokenizer.normalizer = normalizers.Lowercase()
    elif change == "NFC":
        tokenizer.normalizer = normalizers.NFC()
    elif change == "left-stripping token":
        tokenizer.add_tokens([AddedToken("the", lstrip=True, normalized=False)])
    elif change == "space before the text":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.save(str(path))
    return str(path)


CHANGES = ("lower case", "NFC", "left-stripping token", "space before the text")


@pytest.fixture
def config(tmp_path: Path) -> PrepareConfig:
    """Documents with capitals and with accents in two characters each."""
    documents = [unicodedata.normalize("NFD", f"Café the {text}") for text in make_documents(60)]
    return PrepareConfig(sources=(str(write_folder(tmp_path / "texts", documents)),))


@pytest.mark.parametrize("change", CHANGES)
def test_a_tokenizer_that_changes_the_text_is_refused(config: PrepareConfig, tmp_path: Path, change: str) -> None:
    lossy = config.replace(tokenizer=given(tmp_path / "t.json", change))
    with pytest.raises(
        InputError, match=r"tokenizer: it does not keep the text \(texts: .* becomes .*allow_lossy"
    ) as e:
        prepare(lossy, tmp_path / "out")
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_where_losses_are_allowed_they_are_recorded_and_bytes_are_the_documents_own(
    config: PrepareConfig, tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lossy = config.replace(tokenizer=given(tmp_path / "t.json", change), allow_lossy=True)
    dataset = prepare(lossy, tmp_path / "out").dataset
    assert dataset.manifest.lossy is not None
    assert dataset.manifest.lossy.texts == 60
    assert re.search(r"the tokenizer changed 60 texts \(texts: .* becomes .*\)", dataset.notes()[0])
    assert "warning: the tokenizer changes the text of 60" in capsys.readouterr().err
    total = sum(len(path.read_bytes()) for path in (tmp_path / "texts").iterdir())
    assert dataset.manifest.total("train").bytes + dataset.manifest.total("validation").bytes == total
    (source,) = dataset.manifest.sources
    spelled = int(dataset.token_bytes[dataset.validation.read(0, len(dataset.validation))].sum())
    assert source.bytes_per_spelled_byte == pytest.approx(source.validation.bytes / spelled)
    assert (source.bytes_per_spelled_byte == 1) == (change == "lower case")
    counted = sum(int(batch.bytes.sum()) for batch in ValidationBatches(dataset, 8, 1))
    assert counted == pytest.approx(source.validation.bytes, rel=0.03)
    assert Dataset.open(tmp_path / "out", verify=True).manifest_hash == dataset.manifest_hash


def test_a_tokenizer_that_keeps_the_text_is_not_named(config: PrepareConfig, tmp_path: Path) -> None:
    dataset = prepare(config.replace(tokenizer=given(tmp_path / "t.json", "nothing")), tmp_path / "out").dataset
    value = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert value["lossy"] == {"texts": 0}
    assert dataset.notes() == []
    assert not {"allow_lossy", "skip_bad", "names"} & set(value["recipe"])
    assert "bytes_per_spelled_byte" not in value["sources"][0]


def test_texts_beyond_the_sample_are_counted_and_do_not_stop_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One odd text in a million must not cost the hours before it; it is counted, and the scale is right."""
    monkeypatch.setattr(lossless_module, "SAMPLE", 1)
    texts = [text.lower() for text in make_documents(60)]
    folder = write_folder(tmp_path / "texts", [*texts[:59], texts[59].title()])
    config = PrepareConfig(sources=(str(folder),), tokenizer=given(tmp_path / "t.json", "lower case"), seed=1)
    dataset = prepare(config, tmp_path / "out").dataset
    assert dataset.manifest.lossy is not None
    assert dataset.manifest.lossy.texts == 1
    assert "changes the text of 1 documents" in capsys.readouterr().err


def test_a_trained_tokenizer_is_looked_at_too(config: PrepareConfig, tmp_path: Path) -> None:
    check = lossless_module.LosslessCheck(
        train_tokenizer(make_documents(50), 300), ["a"], trained=True, allow_lossy=False
    )
    with pytest.raises(InputError, match=r"a: 'one' becomes 'two'|a: 'one' becomes"):
        check.compare(0, "one", [])


def test_end_of_text_may_have_a_name_of_its_own(config: PrepareConfig, tmp_path: Path) -> None:
    state = json.loads(Path(given(tmp_path / "t.json", "nothing")).read_text())
    state["model"]["vocab"] = {
        ("<finis>" if token == "<|endoftext|>" else token): index for token, index in state["model"]["vocab"].items()
    }
    for added in state["added_tokens"]:
        added["content"] = "<finis>"
    own = tmp_path / "own.json"
    own.write_text(json.dumps(state))
    named = config.replace(tokenizer=str(own))
    with pytest.raises(InputError, match=r"no end-of-text token \(looked for .*name its own with end_of_text"):
        prepare(named, tmp_path / "out")
    with pytest.raises(InputError, match=r"own\.json has no token '<other>' \(its special tokens: <finis>\)"):
        prepare(named.replace(end_of_text="<other>"), tmp_path / "out")
    dataset = prepare(named.replace(end_of_text="<finis>"), tmp_path / "out").dataset
    tokenizer = dataset.load_tokenizer()
    assert tokenizer.id_to_token(dataset.manifest.end_of_text) == "<finis>"
    assert int((dataset.train.read(0, len(dataset.train)) == 0).sum()) == dataset.manifest.total("train").documents
    assert dataset.token_bytes[dataset.manifest.end_of_text] == 0
    for field, value in (("end_of_text", "<finis>"), ("pattern", "gpt2")):
        with pytest.raises(InputError, match=f"{field}: only a given tokenizer needs it"):
            prepare(config.replace(**{field: value}), tmp_path / "other")


def test_an_ordinary_token_becomes_the_end_of_text_and_stands_for_nothing_else(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(make_documents(100, seed=3), 400)
    tokenizer.add_tokens(["END"])
    tokenizer.save(str(tmp_path / "t.json"))
    documents = [f"the END of {text}" for text in make_documents(40)]
    config = PrepareConfig(
        sources=(str(write_folder(tmp_path / "texts", documents)),),
        tokenizer=str(tmp_path / "t.json"),
        end_of_text="END",
    )
    dataset = prepare(config, tmp_path / "out").dataset
    assert dataset.manifest.end_of_text == 400
    ends = int((dataset.train.read(0, len(dataset.train)) == 400).sum())
    assert ends == dataset.manifest.total("train").documents
    assert isinstance(dataset.load_tokenizer(), Tokenizer)


@pytest.mark.parametrize("change", ["lower case", "NFC", "nothing"])
def test_a_folder_of_version_0_1_that_may_be_lossy_is_noted(config: PrepareConfig, tmp_path: Path, change: str) -> None:
    """0.1 did not look: its manifest has no such entry."""
    lossy = config.replace(tokenizer=given(tmp_path / "t.json", change), allow_lossy=True)
    path = prepare(lossy, tmp_path / "out").dataset.folder / "manifest.json"
    value = json.loads(path.read_text())
    del value["lossy"]
    value["sources"][0].pop("bytes_per_spelled_byte", None)
    value["manifest_hash"] = Manifest.parse(value).content_hash()
    path.write_text(json.dumps(value))
    notes = Dataset.open(tmp_path / "out").notes()
    assert len(notes) == (change != "nothing")
    assert all("the tokenizer may have changed the text" in note for note in notes)
