"""The bytes of text that a token of a table holds, by its losses in nats per token beside bits per byte."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moelab.fitting.columns import positive_numbers
from moelab.fitting.table_columns import PER_BYTE

Array = NDArray[Any]
USUAL = (1.5, 8.0)
"""Bytes per token of tokenizers in use: below are units that are not bits per byte (bits or nats per token)."""
BITS_PER_BYTE = float(1 / np.log(2))
"""Bytes per token at which a loss in bits per byte equals one in nats per token."""
ONE_TOKENIZER = 0.02
"""Relative spread up to which all rows have one tokenizer."""


def bytes_per_token(columns: Mapping[str, Any], measured: Array, target: str) -> tuple[float | None, str]:
    """The bytes per token of the measured losses, and a note on what the column of bits per byte does not show.

    A table fitted in bits per byte has 1 / ln 2: that loss is the one in nats per token over bytes times ln 2.
    """
    if PER_BYTE.search(target.lower()):
        return BITS_PER_BYTE, ""
    name = next((name for name in columns if PER_BYTE.search(name.lower())), None)
    if name is None:
        return None, ""
    given = positive_numbers(columns, name)
    if given is None:
        return None, f"{name} is not used: no row holds a positive number"
    found = measured / (given * np.log(2))
    found = found[np.isfinite(found)]
    middle = float(np.median(found))
    if np.ptp(found) > 2 * ONE_TOKENIZER * middle:
        return None, f"{name} is not used: it gives {found.min():.3g} to {found.max():.3g} bytes per token"
    if not USUAL[0] <= middle <= USUAL[1]:
        return None, f"{name} is not used: it gives {middle:.3g} bytes per token; is it in another unit?"
    return middle, ""
