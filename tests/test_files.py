"""Files are whole or absent."""

import math
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from moelab.errors import InputError, MoelabError
from moelab.files import MOST_NESTED, finite, make_folder, read_json, sha256_json, write_json, write_with


def test_json_round_trip(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "a" / "b.json") == {"x": [1, 2.5, None]}
    assert os.listdir(tmp_path / "a") == ["b.json"]


def test_json_has_null_for_what_is_not_finite(tmp_path: Path) -> None:
    value = {
        1: (math.nan, math.inf, -math.inf, 2),
        "a": np.array([[1.5, np.nan]]),
        "n": np.int64(3),
        "f": np.float32(0.5),
    }
    write_json(tmp_path / "a.json", finite(value))
    assert read_json(tmp_path / "a.json") == {"1": [None, None, None, 2], "a": [[1.5, None]], "n": 3, "f": 0.5}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", {"x": math.inf})


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"old": True})

    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(MoelabError, match=r"x\.json: No space left"):
        write_with(path, fail)
    assert read_json(path) == {"old": True}
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_folder_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="--out: cannot create"):
        make_folder(tmp_path / "file" / "folder", "--out")


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"old": True})
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from moelab.files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 100_000)\n"
        "except Exception as error: print(type(error).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.json")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "MoelabError"
    assert read_json(tmp_path / "x.json") == {"old": True}
    assert os.listdir(tmp_path) == ["x.json"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", float("nan"))
    assert not (tmp_path / "x.json").exists()


def test_the_hash_ignores_key_order() -> None:
    assert sha256_json({"a": 1, "b": 2}) == sha256_json({"b": 2, "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 1.5})


DAMAGED_JSON = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep, but not for Python's reader": "[" * 300 + "]" * 300,
    "deep mappings": '{"a":' * 500 + "1" + "}" * 500,
    "an endless whole number": '{"a": ' + "1" * 9000 + "}",
    "a whole number beyond floats": '{"a": -' + "1" * 400 + "}",
    "a key that stands twice": '{"a": 1, "b": {"c": 1, "c": 2}}',
    "cut": '{"a": ',
    "empty": "",
}


@pytest.mark.parametrize("text", DAMAGED_JSON.values(), ids=DAMAGED_JSON.keys())
def test_json_that_cannot_be_used_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "x.json", "record")
    message = str(caught.value)
    assert message.startswith(f"record: {tmp_path / 'x.json'} ")
    assert len(message.splitlines()) == 1
    assert len(message) < 200 + len(str(tmp_path))


def test_json_of_usual_depth_and_numbers_is_read(tmp_path: Path) -> None:
    for value in ([[[[[[1]]]]]], {"a": 10**299, "b": 2**63, "c": -5}, 3, "x", None, [], {}):
        write_json(tmp_path / "x.json", value)
        assert read_json(tmp_path / "x.json") == value
    nested: object = 1
    for _ in range(MOST_NESTED):
        nested = [nested]
    write_json(tmp_path / "x.json", nested)
    assert read_json(tmp_path / "x.json") == nested
    write_json(tmp_path / "x.json", [nested])
    with pytest.raises(InputError, match="nested deeper than 64 levels"):
        read_json(tmp_path / "x.json")
