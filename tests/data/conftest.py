"""Small texts for the data tests: public-domain files in texts/, and made-up documents in any number."""

import random
from pathlib import Path

import pytest

from moelab.data import Dataset, PrepareConfig
from moelab.data.prepare import prepare

TEXTS = Path(__file__).parent / "texts"
WORDS = sorted({word for path in TEXTS.iterdir() for word in path.read_text().split()})


def make_documents(count: int, seed: int = 0, words: int = 60) -> list[str]:
    """Different documents of 10 to 2 x `words` words each."""
    generator = random.Random(seed)
    return [
        f"{number}. " + " ".join(generator.choice(WORDS) for _ in range(generator.randint(10, 2 * words)))
        for number in range(count)
    ]


def write_folder(folder: Path, documents: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(documents):
        (folder / f"{number:04d}.txt").write_text(text)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders of text: 120 longer documents, and 200 short ones."""
    root = tmp_path_factory.mktemp("corpus")
    return (
        write_folder(root / "long", make_documents(120, seed=1, words=120)),
        write_folder(root / "short", make_documents(200, seed=2, words=15)),
    )


@pytest.fixture(scope="session")
def config(corpus: tuple[Path, Path]) -> PrepareConfig:
    return PrepareConfig(sources=tuple(str(folder) for folder in corpus), vocab_size=400)


@pytest.fixture(scope="session")
def dataset(config: PrepareConfig, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The two folders, prepared with 400 tokens. Read only."""
    return prepare(config, tmp_path_factory.mktemp("prepared") / "set").dataset
