"""A small prepared corpus for what is measured on text."""

from pathlib import Path

import pytest

from moelab.data import Dataset, PrepareConfig
from moelab.data.prepare import prepare

TEXTS = Path(__file__).parent.parent / "data" / "texts"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A few kilobytes of real text, vocabulary 300."""
    config = PrepareConfig(sources=(str(TEXTS),), vocab_size=300, validation_share=0.4)
    return prepare(config, tmp_path_factory.mktemp("prepared") / "data").dataset
