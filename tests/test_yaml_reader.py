"""YAML as people mean it: merge keys work, YAML 1.1's surprises stay text, and no alias grows beyond its text."""

import math
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moelab.architecture import ModelConfig
from moelab.config import dump_yaml, load_yaml, override
from moelab.errors import InputError
from moelab.runs import RunConfig
from moelab.yaml_reader import MOST_EXPANDED, parse_yaml
from tests.conftest import CHARACTERS

MODEL = {"vocab_size": 512, "d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32}
TRAIN = {"tokens": 100_000, "seq_len": 128, "batch_tokens": 1024}


def test_merge_keys(tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text("<<: {vocab_size: 512, d_model: 16}\nn_layers: 1\nn_heads: 2\nd_ff: 32\n")
    assert ModelConfig.from_yaml(path) == ModelConfig.parse(MODEL)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", {"x": 1, "y": 3}),
        ("a: &a {x: 1, y: 2}\nb: {y: 3, <<: *a}", {"x": 1, "y": 3}),
        ("a: &a {x: 1}\nc: &c {x: 2, z: 4}\nb: {<<: [*a, *c]}", {"x": 1, "z": 4}),
        ("a: &a {x: 1}\nc: &c {<<: *a, z: 4}\nb: {<<: *c, x: 5}", {"x": 5, "z": 4}),
        ("a: &a {<<: {x: 1}, y: 2}\nc: {<<: *a}\nb: {<<: *a, y: 3}", {"x": 1, "y": 3}),
        ("a: &a {}\nb: {<<: *a}", {}),
        ("b: {'<<': 3}", {"<<": 3}),
    ],
)
def test_a_key_of_the_mapping_itself_stands_above_a_merged_one(text: str, expected: object) -> None:
    assert parse_yaml(text, "x")["b"] == expected


SURPRISES = ["010", "040", "0o17", "0b11", "5:20", "1:30:00", "190:20:30.15", "yes", "no", "on", "off", "Yes", "NO",
             "y", "n", "2024-01-01", "2024-01-01 10:00:00", "2020-13-45", "=", "None", "1e3", "00.5"]  # fmt: skip


@pytest.mark.parametrize("text", SURPRISES)
def test_what_yaml_reads_otherwise_than_people_is_text(text: str) -> None:
    assert parse_yaml(f"a: {text}", "x") == {"a": text}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0), ("-5", -5), ("+5", 5), ("1_000", 1000), ("0x1F", 31), ("1.5", 1.5), ("-.5", -0.5), ("1.", 1.0),
        ("1.0e+3", 1000.0), ("1_000.5", 1000.5), (".inf", math.inf), ("-.INF", -math.inf), ("true", True),
        ("False", False), ("null", None), ("~", None), ("", None), ("!!str 010", "010"), ("!!int 12", 12),
        ("!!float 3", 3.0), ("!!bool yes", True), ("'12'", "12"), ("[1, [2]]", [1, [2]]),
    ],
)  # fmt: skip
def test_plain_values(text: str, expected: object) -> None:
    found = parse_yaml(f"a: {text}", "x")["a"]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("010", "train.seed: write '010' without its leading zero, which some read as octal"),
        ("0o17", "train.seed: expected a number such as 1e21, 300B or 20M .*, got '0o17'"),
        ("5:20", "train.seed: expected a number .*, got '5:20'"),
        ("yes", "train.seed: expected a number .*, got 'yes'"),
        ("true", "train.seed: expected a number, got True"),
        (".inf", "train.seed: expected a finite number"),
        (".nan", "train.seed: expected a finite number"),
        ("2024-01-01", "train.seed: expected a number .*, got '2024-01-01'"),
    ],
)
def test_a_number_is_never_guessed(tmp_path: Path, value: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(dump_yaml({"model": MODEL, "data": {"path": "x"}, "train": TRAIN}) + f"  seed: {value}\n")
    with pytest.raises(InputError, match=message):
        RunConfig.from_yaml(path)
    with pytest.raises(InputError, match=message):
        RunConfig.parse(override({"model": MODEL, "data": {"path": "x"}, "train": TRAIN}, [f"train.seed={value}"]))


def test_names_that_yaml_1_1_takes_for_other_things_stay_names(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for text in SURPRISES:
        path.write_text(
            dump_yaml({"model": MODEL, "data": {"path": "x"}, "train": TRAIN})
            + f"name: {text}\nlabels: {{no: {text!r}, on: {text!r}}}\n"
        )
        config = RunConfig.from_yaml(path)
        assert (config.name, config.labels) == (text, {"no": text, "on": text})
        config.to_yaml(path)
        assert RunConfig.from_yaml(path) == config


@pytest.mark.parametrize(("text", "expected"), [("yes", True), ("on", True), ("no", False), ("off", False)])
def test_yes_and_no_are_read_where_true_or_false_is_meant(text: str, expected: bool) -> None:
    assert ModelConfig.parse(parse_yaml(f"tie_embeddings: {text}", "x") | MODEL).tie_embeddings is expected


def _bomb(last: str, inside: str, parts: int = 9) -> str:
    lines = [f"a0: &a0 {last}"]
    lines += [f"a{i}: &a{i} {inside.format(', '.join([f'*a{i - 1}'] * parts))}" for i in range(1, 30)]
    return "\n".join(lines)


BOMBS = {
    "lists": _bomb("[x, x, x]", "[{}]"),
    "mappings": _bomb("{k: 1}", "{{<<: [{}]}}"),
    "long text": _bomb("y" * 100, "[{}]"),
    "one wide list": "a: &a " + "y" * 2000 + "\nb: [" + ", ".join(["*a"] * 3000) + "]",
    "a chain": "a0: &a0 [x]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 3000)),
    "itself": "&a [*a]",
    "itself in a mapping": "a: &a {b: [*a]}",
    "itself merged": "a: &a\n  <<: *a\n  b: 1",
    "deep": "[" * 5000,
    "deep mappings": "{a: " * 5000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_aliases_that_stand_for_too_much_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^x is not valid YAML \(line \d+: (its aliases|an alias|nested deeper)"):
        parse_yaml(text, "x")


def test_an_alias_bomb_needs_little_memory(tmp_path: Path) -> None:
    """In a process that may take 64 MB more than it has."""
    (tmp_path / "bomb.yaml").write_text(BOMBS["lists"])
    code = (
        "import resource, sys; from moelab.config import load_yaml\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size + 2**26, size + 2**26))\n"
        "try: load_yaml(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "bomb.yaml")], capture_output=True, text=True)
    assert done.stdout.strip() == "InputError", done.stderr
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_as_many_aliases_as_people_write_are_read() -> None:
    text = "base: &b {a: 1, c: [1, 2, 3]}\nruns:\n" + "".join(f"- {{<<: *b, seed: {i}}}\n" for i in range(500))
    assert len(parse_yaml(text, "x")["runs"]) == 500
    assert MOST_EXPANDED >= 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands twice"),
        ("{<<: {a: 1}, <<: {b: 2}}", "the key '<<' stands twice"),
        ("a: {b: 1, 'b': 2}", "the key 'b' stands twice"),
        ("a: " + "1" * 5000, "a whole number of more than 300 digits"),
        ("a: !!int '010'", "'010' is not a whole number"),
        ("a: !!int 5:20", "'5:20' is not a whole number"),
        ("a: !!float 5:20", "'5:20' is no number"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("a: !!timestamp 2024-01-01", "could not determine a constructor"),
        ("a: !!set {b}", "could not determine a constructor"),
        ("a: *nothing", "undefined alias"),
        ("<<: 3", "expected a mapping"),
        ("? [1]\n: 2", "unhashable key"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: \x00", r"position 3: the character U\+0000 is not allowed"),
        ("a: b: c", "line 1: mapping values"),
    ],
)
def test_other_faults_are_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_yaml(text, "config: x.yaml")
    assert str(caught.value).startswith("config: x.yaml is not valid YAML (")
    assert "\n" not in str(caught.value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(CHARACTERS, max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(CHARACTERS, max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(CHARACTERS, max_size=6), PLAIN | st.sampled_from(SURPRISES), max_size=4))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    """Also by PyYAML's own reader: what this version writes, others read."""
    text = dump_yaml(value)
    assert repr(parse_yaml(text, "x")) == repr(yaml.safe_load(text)) == repr(value)


def test_every_packaged_file_reads_as_before() -> None:
    """YAML 1.1 and this reader agree on what moelab itself ships."""
    source = Path(sys.modules["moelab"].__file__ or "").parent
    paths = sorted(source.rglob("*.yaml"))
    assert len(paths) > 5
    for path in paths:
        assert load_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8")), path


@given(st.text(st.sampled_from("ab1 \n:-,[]{}#&*'\"\\.~<=@`é"), max_size=24))
def test_both_parsers_read_the_same(text: str) -> None:
    """libyaml's, which is taken for plain text, and PyYAML's own, which names faults."""

    def outcome() -> str:
        try:
            return repr(parse_yaml(text, "x"))
        except InputError as error:
            return str(error)

    found = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moelab.yaml_reader._FastReader", None)
        assert outcome() == found
