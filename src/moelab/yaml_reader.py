"""YAML as people mean it: no octal, no sixties, no dates, `yes` and `no` as text until a field wants true or false.

What YAML 1.1 reads otherwise than people (`010` as 8, `5:20` as 320, `2024-01-01` as a date, `no` as false) stays text,
and the field that gets it decides. Merge keys (`<<`) work. Anchors and aliases work as far as what they stand for stays
small. Only plain data is read: no tag makes an object.
"""

import re
from contextlib import suppress
from typing import Any, ClassVar

import yaml

from moelab.errors import InputError
from moelab.files import MOST_DIGITS, MOST_NESTED
from moelab.printable import cut, short

MOST_EXPANDED = 100_000
"""Values that aliases may stand for, written out; where the text itself holds more, ten times what it holds."""
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(
    r"(?:[-+]?(?:0|[1-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
)
_PLAIN: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), "~nN"),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("merge", re.compile(r"<<\Z"), "<"),
)
"""What a word without quotes may be, by its first letter; else it is text."""
_DIFFERS = re.compile("[^\n -~\u00a0-\u2027\u202a-\ud7ff]|[|>!%?]")
"""Where libyaml's parser is more lenient than PyYAML's own: control characters, tabs, blocks of text, tags and `?`."""


def parse_yaml(text: str, where: str) -> Any:
    """YAML text as plain data. Raises InputError naming `where` and the line."""
    if _FastReader is not None and not _DIFFERS.search(text):
        with suppress(Exception):  # the other reader finds it again, with its place in the text
            return yaml.load(text, _FastReader)
    try:
        return yaml.load(text, _Reader)  # type: ignore[arg-type]
    except yaml.reader.ReaderError as error:
        what = f"position {error.position}: the character U+{int(error.character):04X} is not allowed"
        raise InputError(f"{where} is not valid YAML ({what})") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = cut(" ".join(str(error.problem).split()), 200)
        raise InputError(f"{where} is not valid YAML ({line}{problem})") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InputError(f"{where} is not valid YAML") from None


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, mark)


class _Rules(yaml.composer.Composer, yaml.constructor.SafeConstructor, yaml.resolver.BaseResolver):
    """Refuses a key that stands twice in one mapping, deep nesting, and aliases that stand for too much."""

    yaml_implicit_resolvers = {}
    yaml_constructors: ClassVar[dict[Any, Any]] = {}

    def __init__(self) -> None:
        for part in (yaml.composer.Composer, yaml.constructor.SafeConstructor, yaml.resolver.BaseResolver):
            part.__init__(self)
        self._depth, self._composed = 0, 0
        self._sizes: dict[int, tuple[int, int]] = {}  # of a node: the values and the levels it stands for

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise self._refuse(f"nested deeper than {MOST_NESTED} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> Any:
        node = super().compose_scalar_node(anchor)
        return self._sized(node, [], 1 + len(node.value) // 16)

    def compose_sequence_node(self, anchor: Any) -> Any:
        node = super().compose_sequence_node(anchor)
        return self._sized(node, node.value, 1)

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _fault(f"the key {short(key.value)} stands twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return self._sized(node, [part for pair in node.value for part in pair], 1)

    def _sized(self, node: Any, parts: list[Any], own: int) -> Any:
        """The node, once what it stands for was counted: an alias counts as all that it repeats."""
        self._composed += own
        size, levels = own, 1
        for part in parts:
            if id(part) not in self._sizes:
                raise self._refuse("an alias stands for a part that holds it")
            inner, below = self._sizes[id(part)]
            size, levels = size + inner, max(levels, below + 1)
        if size > max(MOST_EXPANDED, 10 * self._composed):
            raise self._refuse(f"its aliases stand for more than {MOST_EXPANDED:,} values")
        if levels > MOST_NESTED:
            raise self._refuse(f"nested deeper than {MOST_NESTED} levels")
        self._sizes[id(node)] = size, levels
        return node

    def _refuse(self, problem: str) -> yaml.MarkedYAMLError:
        return _fault(problem, self.get_mark())  # type: ignore[attr-defined]

    def construct_whole(self, node: Any) -> int:
        text = str(self.construct_scalar(node))
        if not _INT.match(text):
            raise _fault(f"{short(text)} is not a whole number", node.start_mark)
        digits = text.replace("_", "")
        if len(digits) > MOST_DIGITS:
            problem = f"a whole number of more than {MOST_DIGITS} digits"
            raise _fault(problem, node.start_mark)
        return int(digits, 16 if "x" in digits else 10)

    def construct_real(self, node: Any) -> float:
        text = str(self.construct_scalar(node)).replace("_", "").lower()
        try:
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise _fault(f"{short(text)} is no number", node.start_mark) from None


for _name, _pattern, _first in _PLAIN:
    _Rules.add_implicit_resolver(_TAG + _name, _pattern, [*_first, ""] if _name == "null" else list(_first))
_Rules.yaml_constructors |= {
    f"{_TAG}null": yaml.SafeLoader.construct_yaml_null,
    f"{_TAG}bool": yaml.SafeLoader.construct_yaml_bool,
    f"{_TAG}str": yaml.SafeLoader.construct_yaml_str,
    f"{_TAG}seq": yaml.SafeLoader.construct_yaml_seq,
    f"{_TAG}map": yaml.SafeLoader.construct_yaml_map,
    f"{_TAG}int": _Rules.construct_whole,
    f"{_TAG}float": _Rules.construct_real,
    None: yaml.SafeLoader.construct_undefined,
}


class _Reader(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, _Rules):
    """Reads with PyYAML's own parser, which knows the place of a fault."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        _Rules.__init__(self)


def _fast_reader() -> Any:
    """A reader with libyaml's parser, three times as fast; None where PyYAML was built without it."""
    if not hasattr(yaml, "CSafeLoader"):
        return None
    parser: Any = yaml.cyaml.CParser  # type: ignore[attr-defined]

    class FastReader(_Rules, parser):
        def __init__(self, text: str) -> None:
            parser.__init__(self, text)
            _Rules.__init__(self)

    return FastReader


_FastReader = _fast_reader()
