"""Text from outside (names, labels, licences, messages) made safe to show: what would act is shown, escaped."""

import math
import re
import reprlib
import sys
from collections.abc import Iterable
from difflib import get_close_matches

_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (ESC, CR, newlines), marks that reorder text, line separators, halves of characters."""
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~&$]|_(?![^\W_])|(?<![^\W_])_")
"""What acts in Markdown; an underscore between letters does not."""
_LONGEST = 60


def printable(text: object, keep: str = "") -> str:
    """The text with every acting character as its escape (`\\x1b`, `\\u202e`), but for those in `keep`."""
    return _ACTING.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), str(text))


def _escape(character: str) -> str:
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character) or (
        f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
    )


def markdown(text: object) -> str:
    """The text as Markdown that shows it as it is: no link, no HTML, no table border, one line."""
    return _MARKDOWN.sub(lambda found: "\\" + found[0], printable(text))


def fenced(text: str) -> str:
    """The text as a Markdown code block, whatever backticks it holds."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{printable(text, keep=chr(10)).rstrip(chr(10))}\n{fence}"


def short(value: object) -> str:
    """The value as Python writes it, cut after 60 characters: for messages."""
    if isinstance(value, int) and abs(value) >= 10**_LONGEST:
        return f"one of {math.floor(math.log10(abs(value))) + 1} digits"
    return cut(repr(value) if isinstance(value, int | float | str | bytes) else reprlib.repr(value))


def cut(text: str, most: int = _LONGEST) -> str:
    """The text, with dots in the place of what is beyond `most` characters."""
    return text if len(text) <= most else text[: most - 3] + "..."


def suggest(name: str, known: Iterable[str], most: int = 3) -> str:
    """The names that begin like this one or resemble it: "did you mean 'a' or 'b'? ", empty where none does."""
    lower = {each.lower(): each for each in known}
    near = [each for each in lower if len(name) > 2 and each.startswith(name.lower())]
    near += [each for each in get_close_matches(name.lower(), lower, n=most, cutoff=0.6) if each not in near]
    return f"did you mean {' or '.join(repr(lower[each]) for each in near[:most])}? " if near else ""


def warn(text: str) -> None:
    """A warning on stderr, on one line."""
    print("warning: " + printable(" ".join(text.split())), file=sys.stderr)
