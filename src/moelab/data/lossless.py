"""Whether a tokenizer keeps the text: what the tokens spell is compared with what was read.

A tokenizer that changes letters (lower case, normalised accents, dropped spaces) makes text easier to predict, so its
bits per byte mean nothing beside others'.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moelab.data.tokenizer import encode, spelled_tokens
from moelab.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SAMPLE = 1 << 20
"""Characters of each source in which nothing may be changed, unless losses are allowed."""


class LosslessCheck:
    """Compare texts with what their tokens spell, byte by byte.

    `changed` counts the texts that did not come back, `example` shows the first. Of a `trained` tokenizer, which is
    lossless by construction, a sample of each source is compared; of a given one everything.
    """

    def __init__(self, tokenizer: "Tokenizer", source_names: list[str], *, trained: bool, allow_lossy: bool) -> None:
        self._spelled = spelled_tokens(tokenizer)
        self.lengths = np.array([len(spelled) for spelled in self._spelled], dtype=np.int64)
        """Bytes of text in each token, shape (vocab_size,)."""
        self.changed = 0
        self.example: str | None = None
        self.spelled_bytes = [0] * len(source_names)
        """Bytes that the counted tokens of each source spell; only of a tokenizer that was given."""
        self._names = source_names
        self._sample = [SAMPLE >> 4 if trained else SAMPLE] * len(source_names)
        self._trained, self._allow_lossy = trained, allow_lossy

    def compare(self, source: int, text: str, ids: list[int]) -> None:
        """Look at one text and its token ids. Raises InputError where a text of the sample does not come back."""
        left = self._sample[source]
        if left <= 0 and self._trained:
            return
        self._sample[source] = left - len(text)
        content = text.encode()
        spelled = b"".join([self._spelled[index] for index in ids])
        if spelled == content:
            return
        self.changed += 1
        if self.example is None:
            self.example = f"{self._names[source]}: {_difference(content, spelled)}"
        if left > 0 and not self._allow_lossy:
            raise InputError(
                f"tokenizer: it does not keep the text ({self.example}), so bits per byte would be too low; give "
                "another, or allow_lossy"
            )

    def count(self, source: int, ids: NDArray[np.unsignedinteger]) -> None:
        """Add the bytes that these tokens spell to those of their source."""
        if not self._trained:
            self.spelled_bytes[source] += int(self.lengths[ids].sum())


PROBE = " The  Café\tCAFE\u0301 \ufb01 \u212b\r\n two\u00a0THREE "
"""Capitals, accents in one and in two characters, ligatures, doubled and odd spaces."""


def change_of_probe(tokenizer: "Tokenizer") -> str | None:
    """What the tokenizer changes in a short difficult text; None where it keeps it."""
    spelled = spelled_tokens(tokenizer)
    found = b"".join(spelled[index] for index in next(encode(tokenizer, [PROBE])))
    return None if found == PROBE.encode() else _difference(PROBE.encode(), found)


def _difference(content: bytes, spelled: bytes) -> str:
    """The first stretch in which two texts differ, for people."""
    at = next((i for i, pair in enumerate(zip(content, spelled, strict=False)) if pair[0] != pair[1]), None)
    at = min(len(content), len(spelled)) if at is None else at
    begin = max(at - 10, 0)
    was, became = (text[begin : at + 15].decode("utf-8", "replace") for text in (content, spelled))
    return f"{was!r} becomes {became!r}"
