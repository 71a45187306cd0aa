"""`import moelab` is light, and every public name is there."""

import subprocess
import sys

import pytest

import moelab


@pytest.mark.parametrize("name", moelab.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(moelab, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = moelab.fitt


def test_importing_loads_nothing() -> None:
    code = "import sys, moelab; assert not {'numpy', 'torch', 'polars', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
