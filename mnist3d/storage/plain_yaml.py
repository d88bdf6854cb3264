"""YAML that people write, as plain values: the one reader of YAML files.

The bytes of a file -> text -> mappings, lists, text and numbers. No tag is followed, so no file can cause an import.
Which keys and types are right is for the caller.
"""

import codecs
from pathlib import Path
from typing import Any

import yaml

from ..errors import ConfigError, shown
from .plain_files import read_plain

MAX_BYTES = 2**20  # of a file
MAX_VALUES, MAX_DEPTH, MAX_BITS = 50_000, 50, 1024  # of one configuration, and of one whole number in it
MAX_DIGITS = 400  # of a number as it is written: 1:30:30:... is a number too, and takes the square of its length
# Beside its own, the library raises what int, dates and dictionaries do.
UNREADABLE = (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)
TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
TOO_MUCH = f"more than {MAX_VALUES} values, or more than {MAX_DEPTH} in each other"
# Byte order marks; that of UTF-32 begins as that of UTF-16 does.
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
SAVE_IT = "save it as UTF-8, in an editor under Save as, Encoding"


def read_yaml_file(path: str | Path) -> Any:
    """The plain values in a YAML file: UTF-8, or UTF-8, UTF-16 or UTF-32 with a byte order mark.

    Raises:
        OSError: it cannot be read, is no plain file, or holds more than `MAX_BYTES`.
        ValueError: another encoding, no YAML, a key twice, or more than a configuration needs; the message follows a
            file name.
    """
    text = decoded(read_plain(path, MAX_BYTES))
    try:
        return read_yaml(text)
    except ValueError as error:
        raise ValueError(f"not valid YAML ({error})") from None


def decoded(content: bytes) -> str:
    """The text of a file that somebody wrote, without its byte order mark.

    Raises:
        ValueError: neither UTF-8 nor an encoding that a byte order mark tells.
    """
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    if encoding == "utf-8" and b"\0" in content:
        raise ValueError(f"cannot be read, it is no UTF-8 text (it holds zero bytes, as UTF-16 does); {SAVE_IT}")
    try:
        return content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, len(mark) + error.start) + 1
        where = f"byte 0x{content[len(mark) + error.start]:02x} in line {line}" if encoding == "utf-8" else "cut short"
        raise ValueError(f"cannot be read, it is no {encoding.upper()} text ({where}); {SAVE_IT}") from None


class _Bounded(yaml.SafeLoader):
    """Counts values while they are read, each alias for all that it stands for, and stops at the limits.

    A key that a mapping has twice is refused: one of the two would be lost without a word.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.count = self.depth = 0
        self.stands_for: dict[int, int] = {}  # values in a node, itself included

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next value with all in it."""
        is_alias, before = self.check_event(yaml.AliasEvent), self.count
        self.count, self.depth = self.count + 1, self.depth + 1
        self._check()
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        if is_alias:
            self.count += self.stands_for.get(id(node), MAX_VALUES) - 1  # one that holds itself has no end
            self._check()
        else:
            self.stands_for[id(node)] = self.count - before
        if isinstance(node, yaml.ScalarNode) and node.tag != TEXT and len(node.value) > MAX_DIGITS:
            raise ValueError(f"{shown(node.value)}: a number of more than {MAX_DIGITS} characters")
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """A mapping with all in it, as it is written: what merge keys bring along may stand beside a key of its own."""
        node: Any = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE):
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                where = f"lines {lines[name]} and {line}" if lines[name] != line else f"line {line}"
                raise ValueError(f"{shown(key.value)}: is given twice, in {where}; leave one out")
            lines[name] = line
        return node

    def _check(self) -> None:
        if self.count > MAX_VALUES or self.depth > MAX_DEPTH:
            raise ValueError(TOO_MUCH)


class _BoundedText(_Bounded):
    """Likewise, and numbers stay text."""

    yaml_implicit_resolvers = yaml.BaseLoader.yaml_implicit_resolvers


def read_yaml(text: str, *, numbers: bool = True) -> Any:
    """The plain values of a YAML text; no tag of it is followed.

    Args:
        text: the YAML.
        numbers: whether what looks like a number, true, false or null is one; else all is text.

    Raises:
        ValueError: no YAML, a key twice, or more than a configuration needs.
    """
    try:
        values = yaml.load(text, _Bounded if numbers else _BoundedText)
    except UNREADABLE as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None
    check_plain(values)
    return values


def check_plain(values: Any) -> None:
    """A few lines of YAML can stand for more values than a message about them could hold, or for endless ones.

    Raises:
        ConfigError: too many, too deep, or no plain values.
    """
    left, count = [(values, 0)], 0
    while left:
        (value, depth), count = left.pop(), count + 1
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise ConfigError(TOO_MUCH)
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            raise ConfigError(f"a whole number of more than {MAX_BITS} bits")
        if isinstance(value, dict):
            left += [(each, depth + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list | tuple):
            left += [(each, depth + 1) for each in value]
        elif isinstance(value, str):
            _check_text(value)
        elif not isinstance(value, int | float | None):
            raise ConfigError(f"{shown(value)} is a {type(value).__name__}; text that looks like one stands in quotes")


def _check_text(text: str) -> None:
    """Bytes of a file name that are no text are kept as Python has them; other halves of characters mean nothing."""
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ConfigError(f"{shown(ascii(text))}: holds {text[error.start]!a}, half of a character") from None
    if "\0" in text:
        raise ConfigError(f"{shown(ascii(text))}: holds a zero byte")
