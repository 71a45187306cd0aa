"""What to prepare: the sources, their tokenizer and their share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from moelab.config import Config, Count, CountOrZero, Fraction, TokenCount, at_most
from moelab.data.sources import Source, open_sources
from moelab.data.tokenizer import LARGEST_VOCABULARY, load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_VOCABULARY = 4096


class PrepareConfig(Config):
    """What to prepare. `tokenizer` is a file that replaces training one; then `vocab_size` is its own.

    `names` are the sources' names, one for each. `end_of_text` is the token of a given tokenizer that ends documents,
    `pattern` how a rank file splits text (`ranks.PATTERNS` or a regular expression). `skip_bad` leaves out and counts
    rows that cannot be used. `allow_lossy` takes a tokenizer that changes the text; the manifest then names that.
    """

    sources: tuple[str, ...] = ("default",)
    vocab_size: Annotated[Count, at_most(LARGEST_VOCABULARY)] = DEFAULT_VOCABULARY
    tokenizer: str | None = None
    max_tokens: TokenCount | None = None
    seed: CountOrZero = 0
    validation_share: Fraction = 0.05
    text_field: str = "text"
    names: tuple[str, ...] | None = None
    end_of_text: str | None = None
    pattern: str | None = None
    skip_bad: bool = False
    allow_lossy: bool = False

    def load_tokenizer(self) -> "Tokenizer":
        """The given tokenizer. Raises InputError where it cannot be used."""
        assert self.tokenizer is not None
        return load_tokenizer(self.tokenizer, self.end_of_text, self.pattern)

    def open_sources(self, cache: Path) -> list[Source]:
        """The sources, named. Raises InputError naming the first that cannot be used."""
        return open_sources(self.sources, self.text_field, cache, self.names or ())
