"""Plain values -> dataclasses and constructors' arguments, every value checked against its type hint.

YAML without tags, the types that a hint allows, and one line for what it does not. Nothing that a value names is
imported. Ranges are checked in each dataclass's `__post_init__`.
"""

import copy
import dataclasses
import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from ..errors import ConfigError
from ..errors import shown as shown
from ..storage.plain_yaml import read_yaml

Section = TypeVar("Section")
NO_DEFAULT = inspect.Parameter.empty
SWITCHES = {"off": False, "no": False, "on": True, "yes": True}  # what YAML 1.1 makes of these words
NAMED = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
PLURAL = {int: "whole numbers", float: "numbers"}  # where the others are their own


@dataclass(frozen=True)
class Option:
    """One key of a section, or one argument of a constructor.

    Args:
        hint: its type; Any where nothing can be said.
        default: NO_DEFAULT where it must be given.
    """

    hint: Any
    default: Any


def options_of(owner: type[Any]) -> dict[str, Option]:
    """The keys of a dataclass, or the named arguments of another class's constructor, by name.

    A constructor's `**kwargs` stand for the arguments of the next class up that has a constructor of its own.
    """
    if dataclasses.is_dataclass(owner):
        hints = _hints(owner)
        return {field.name: Option(hints.get(field.name, Any), _default(field)) for field in dataclasses.fields(owner)}
    found: dict[str, Option] = {}
    for parent in owner.__mro__:
        if "__init__" not in vars(parent):
            continue
        hints, parameters = _hints(parent.__init__), list(inspect.signature(parent.__init__).parameters.values())[1:]
        for each in parameters:
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                found.setdefault(each.name, Option(hints.get(each.name, Any), each.default))
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return found


def validated(section: type[Section], values: Any, key: str) -> Section:
    """A dataclass from a mapping of plain values.

    Args:
        section: its class; fields that are dataclasses themselves are built likewise.
        values: what is given; the rest are defaults.
        key: where the mapping stands, for messages: "trainer", or "" for the whole configuration.

    Raises:
        ConfigError: one line about an unknown key, a wrong type, or what `__post_init__` refuses.
    """
    given = _checked_keys(section, values, key)
    try:
        return section(**given)
    except ConfigError:
        raise
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ConfigError(" ".join(str(error).split())) from None


def validated_arguments(owner: type[Any], values: Any, key: str) -> dict[str, Any]:
    """All arguments of a constructor, defaults included, from a mapping of plain values.

    Args:
        owner: the class; it is not built.
        values: what is given.
        key: name of the mapping, for messages: "volume".

    Raises:
        ConfigError: one line about an unknown, missing or badly typed argument.
    """
    given, options = _checked_keys(owner, values, key), options_of(owner)
    for name, option in options.items():
        if name not in given and option.default is NO_DEFAULT:
            raise ConfigError(f"{key}.{name}: is missing; must be {kinds(option.hint)}")
    return {name: given[name] if name in given else copy.deepcopy(each.default) for name, each in options.items()}


def checked(hint: Any, value: Any, key: str) -> Any:
    """A value of the type that a hint allows: a whole number is a number, and so is text such as 1e-3.

    Raises:
        ConfigError: it is of another type.
    """
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return validated(hint, value, key)
    members = _members(hint)
    if type(value) in members and not isinstance(value, list | dict):
        return value
    lists = [member for member in members if _is_list(member)]
    if isinstance(value, list | tuple) and len(lists) == 1:
        (item,) = get_args(lists[0]) or (Any,)
        return [checked(item, each, f"{key}[{number}]") for number, each in enumerate(value)]
    for member in members:
        found = _taken(member, value, key)
        if found is not NO_DEFAULT:
            return found
    quotes = "; in YAML, put it in quotes" if str in members and isinstance(value, int | float) else ""
    words = [word for member in members if get_origin(member) is Literal for word in get_args(member)]
    near = difflib.get_close_matches(value, map(str, words), n=1) if isinstance(value, str) else []
    meant = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{key}={shown(value)}: must be {kinds(hint)}{meant}{quotes}")


def from_text(hint: Any, text: str) -> Any:
    """What somebody typed behind a flag: text where the hint asks for text, else YAML."""
    members = _members(hint)
    if all(_is_text(member) or member is type(None) for member in members):
        return None if text == "null" and type(None) in members else text
    if not text.strip():
        return text  # to YAML it were null
    as_text = any(member == list[str] for member in members) and text != "null"
    try:
        value = read_yaml(text, numbers=not as_text)
        others = tuple(member for member in members if member is not str)
        return value if others == members else checked(others, value, "")
    except ValueError:
        return text  # refused with its key, where it is no text


def no_such_key(key: str, known: Sequence[str]) -> ConfigError:
    """The error about a key that there is not, with the nearest of those there are."""
    return ConfigError(f"{key}: no such key{did_you_mean(key, known)}; --help lists all")


def did_you_mean(given: str, known: Sequence[str]) -> str:
    """The nearest of the known names as a question; of dotted keys those of the same section come first."""
    place, _, name = given.rpartition(".")
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == place}
    elsewhere = {key: key for key in known if key not in beside.values() and not given.startswith(f"{key}.")}
    for wanted, keys in ((name, beside), (given, elsewhere)):
        if near := difflib.get_close_matches(wanted, keys, n=1, cutoff=0.6):
            return f", did you mean {keys[near[0]]}?"
    return ""


def kinds(hint: Any, plural: bool = False) -> str:
    """What a value of a hint must be, in words: "a whole number or null", in the plural "whole numbers or null"."""
    members = [member for member in _members(hint) if not (member is int and float in _members(hint))]
    return " or ".join(dict.fromkeys(_kind(member, plural) for member in members))


def keys_of(section: type[Any], key: str = "") -> Iterator[str]:
    """Every key of a dataclass, those of the dataclasses in it too."""
    for name, option in options_of(section).items():
        full = f"{key}.{name}" if key else name
        if isinstance(option.hint, type) and dataclasses.is_dataclass(option.hint):
            yield from keys_of(option.hint, full)
        else:
            yield full


def _checked_keys(owner: type[Any], values: Any, key: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"{key}={shown(values)}: must be a mapping, {{KEY: VALUE, ...}}")
    options = options_of(owner)
    given = {}
    for name, value in values.items():
        full = f"{key}.{name}" if key else f"{name}"
        if name not in options:
            inner = next(iter(value)) if isinstance(value, dict) and value else None
            raise no_such_key(shown(full if inner is None else f"{full}.{inner}"), [*keys_of(owner, key)])
        given[name] = checked(options[name].hint, value, full)
    return given


def _taken(hint: Any, value: Any, key: str) -> Any:
    """The value as one member of a union takes it; NO_DEFAULT if it does not."""
    if hint is type(None):
        return value if value is None else NO_DEFAULT
    if hint is bool or hint is str:
        return value if isinstance(value, hint) else NO_DEFAULT
    if hint is int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,300}", value):
            return int(value)
        return value if isinstance(value, int) and not isinstance(value, bool) else NO_DEFAULT
    if hint is float:
        return _number(value)
    origin = get_origin(hint)
    if origin is Literal:
        for choice in get_args(hint):
            if (type(value) is type(choice) and value == choice) or (
                isinstance(value, bool) and SWITCHES.get(choice) is value
            ):
                return choice
        return NO_DEFAULT
    if _is_list(hint):
        return NO_DEFAULT  # lists have been dealt with
    if origin is dict or hint is dict:
        (_, item) = get_args(hint) or (str, Any)
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            return NO_DEFAULT
        return {name: checked(item, each, f"{key}.{name}") for name, each in value.items()}
    return value  # Any, or a type of somebody else's, which the class itself must check


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return NO_DEFAULT
    try:
        return float(value)
    except (ValueError, OverflowError):
        return NO_DEFAULT


def _kind(hint: Any, plural: bool) -> str:
    origin = get_origin(hint)
    if origin is Literal:
        return ("" if plural or len(get_args(hint)) == 1 else "one of ") + ", ".join(map(str, get_args(hint)))
    if _is_list(hint):
        inner, own = kinds(get_args(hint)[0], plural=True) if get_args(hint) else "", "lists" if plural else "a list"
        return f"{own} of {inner}" if inner and inner != "anything" else own
    if origin is dict or hint is dict:
        return "mappings" if plural else "a mapping"
    named = NAMED | PLURAL if plural else NAMED
    return "anything" if hint is Any else named.get(hint, getattr(hint, "__name__", str(hint)))


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or of a tuple that stands for one."""
    if isinstance(hint, tuple):
        return hint
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is_list(hint: Any) -> bool:
    return hint is list or get_origin(hint) is list


def _is_text(hint: Any) -> bool:
    return hint is str or (get_origin(hint) is Literal and all(isinstance(choice, str) for choice in get_args(hint)))


def _hints(owner: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner)
    except (NameError, TypeError, AttributeError):  # of names that are imported for type checkers only
        return {}


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return NO_DEFAULT if field.default_factory is dataclasses.MISSING else field.default_factory()
