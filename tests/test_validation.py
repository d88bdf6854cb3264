"""Plain values against type hints: what is taken, what is refused in one line, and hostile YAML."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, Union

import pytest
from torch import nn

from mnist3d.errors import ConfigError
from mnist3d.runs.validation import (
    checked,
    did_you_mean,
    from_text,
    keys_of,
    options_of,
    shown,
    validated,
    validated_arguments,
)
from mnist3d.storage.plain_yaml import check_plain, read_yaml

Switch = Literal["off", "warn"]


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 3, 3),
        (int, "3", 3),
        (int, "-3", -3),
        (float, 3, 3.0),
        (float, "1e-3", 1e-3),  # YAML 1.1 reads it as text
        (float, "inf", float("inf")),  # ranges are for others to check
        (bool, True, True),
        (str, "3", "3"),
        (str, "", ""),
        (Switch, "warn", "warn"),
        (Switch, False, "off"),  # YAML 1.1 reads off as false
        (Literal[1, 2], 2, 2),
        (int | None, None, None),
        (int | None, 3, 3),
        (int | float, 3, 3),
        (float | int, 3, 3),
        (int | float, "1e-1", 0.1),
        (str | float, "3", "3"),
        (Union[int, None], None, None),  # noqa: UP007 - as other people write it
        (list[int], [1, "2"], [1, 2]),
        (list[int], [], []),
        (list[int], (1, 2), [1, 2]),
        (list[list[float]], [[1], [2.5]], [[1.0], [2.5]]),
        (int | list[int] | None, [4, 5], [4, 5]),
        (int | list[int] | None, 4, 4),
        (list, [1, "a"], [1, "a"]),
        (list[Any] | None, [{"digit": 1}, "08"], [{"digit": 1}, "08"]),
        (dict[str, Any], {"a": [1]}, {"a": [1]}),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (dict, {}, {}),
        (Any, None, None),
        (nn.Module, "somebody else's", "somebody else's"),  # what is no plain type, its class must check
    ],
    ids=str,
)
def test_what_a_hint_takes(hint, value, expected):
    found = checked(hint, value, "key")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, "abc", "key=abc: must be a whole number"),
        (int, 1.5, "key=1.5: must be a whole number"),
        (int, True, "key=true: must be a whole number"),
        (int, None, "key=null: must be a whole number"),
        (int, "1.5", "key=1.5: must be a whole number"),
        (float, "x", "key=x: must be a number"),
        (float, False, "key=false: must be a number"),
        (float, [1.0], "key=[1.0]: must be a number"),
        (float, 10**400, f"key=1{'0' * 99} ...: must be a number"),
        (bool, 1, "key=1: must be true or false"),
        (bool, "true", "key=true: must be true or false"),
        (str, 3, "key=3: must be text; in YAML, put it in quotes"),
        (str, None, "key=null: must be text"),
        (str | None, 2.5, "key=2.5: must be text or null; in YAML, put it in quotes"),
        (Switch, "on", "key=on: must be one of off, warn"),
        (Switch, True, "key=true: must be one of off, warn"),
        (Switch, ["off"], "key=['off']: must be one of off, warn"),
        (Literal[1, 2], True, "key=true: must be one of 1, 2"),
        (int | None, "a b\nc", "key=a b c: must be a whole number or null"),
        (int | float | None, "a", "key=a: must be a number or null"),
        (list[int], 3, "key=3: must be a list of whole numbers"),
        (list[int], [1, "a"], "key[1]=a: must be a whole number"),
        (list[list[int]], [[1], [None]], "key[1][0]=null: must be a whole number"),
        (int | list[int] | None, [1, 2.5], "key[1]=2.5: must be a whole number"),
        (int | list[int] | None, "a", "key=a: must be a whole number or a list of whole numbers or null"),
        (list[Any] | None, {}, "key={}: must be a list or null"),
        (dict[str, Any], [1], "key=[1]: must be a mapping"),
        (dict[str, Any], {1: 2}, "key={1: 2}: must be a mapping"),
        (dict[str, int], {"a": "b"}, "key.a=b: must be a whole number"),
    ],
    ids=str,
)
def test_what_a_hint_refuses_in_one_line(hint, value, message):
    with pytest.raises(ConfigError) as error:
        checked(hint, value, "key")
    assert str(error.value) == message


@dataclass
class Inner:
    steps: int = 1
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.steps == 13:
            raise ValueError(f"inner.steps={self.steps}:\nmust be\nothers")
        if self.steps == 14:
            raise ZeroDivisionError("of nothing")


@dataclass
class Outer:
    """Of two levels."""

    seed: int = 0
    inner: Inner = field(default_factory=Inner)


def test_a_dataclass_of_dataclasses():
    assert validated(Outer, {}, "") == Outer()
    built = validated(Outer, {"seed": 2, "inner": {"steps": 3, "names": ["a"]}}, "")
    assert built == Outer(2, Inner(3, ["a"]))
    assert validated(Outer, {"inner": {}}, "").inner.names is not Outer().inner.names
    assert list(keys_of(Outer)) == ["seed", "inner.steps", "inner.names"]
    assert options_of(Outer)["seed"].default == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sed": 1}, "sed: no such key, did you mean seed?; --help lists all"),
        ({"inner": {"step": 1}}, "inner.step: no such key, did you mean inner.steps?; --help lists all"),
        ({"iner": {"steps": 1}}, "iner.steps: no such key, did you mean inner.steps?; --help lists all"),
        ({"steps": 1}, "steps: no such key, did you mean inner.steps?; --help lists all"),
        ({"zzzzzzzzz": {}}, "zzzzzzzzz: no such key; --help lists all"),
        ({3: 1}, "3: no such key; --help lists all"),
        ({"inner": 3}, "inner=3: must be a mapping, {KEY: VALUE, ...}"),
        ({"inner": {"steps": "a"}}, "inner.steps=a: must be a whole number"),
        ({"inner": {"steps": 13}}, "inner.steps=13: must be others"),
        ({"inner": {"steps": 14}}, "of nothing"),
    ],
    ids=str,
)
def test_mistakes_in_a_dataclass_are_one_line(values, message):
    with pytest.raises(ConfigError) as error:
        validated(Outer, values, "")
    assert str(error.value) == message


class Base:
    def __init__(self, radius: float = 0.5, *, count: int = 3) -> None: ...


class Passes(Base):
    """Hands its keywords on."""

    def __init__(self, init: "str", palette=(0.1, 0.2), **options: Any) -> None:
        super().__init__(**options)


class Inherits(Passes):
    pass


class Unresolvable:
    def __init__(self, there: "Somewhere" = None, also: int = 3) -> None:  # noqa: F821  # pyright: ignore
        pass


def test_a_constructors_arguments_come_with_its_defaults_and_those_it_hands_on():
    expected = {"init": "a", "palette": (0.1, 0.2), "radius": 2.0, "count": 3}
    assert validated_arguments(Inherits, {"init": "a", "radius": 2}, "volume") == expected
    assert validated_arguments(Unresolvable, {"there": 3}, "volume") == {"there": 3, "also": 3}
    assert validated_arguments(nn.Module, {}, "volume") == {}
    default = [1, 2]
    # a list that is a default belongs to the class
    made = type("Made", (), {"__init__": lambda self, sizes=default: None})
    validated_arguments(made, {}, "volume")["sizes"].append(3)
    assert default == [1, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "volume.init: is missing; must be text"),
        ({"init": "a", "radis": 1}, "volume.radis: no such key, did you mean volume.radius?; --help lists all"),
        ({"init": "a", "self": 1}, "volume.self: no such key; --help lists all"),
        ({"init": "a", "options": 1}, "volume.options: no such key; --help lists all"),
        ({"init": "a", "count": 1.5}, "volume.count=1.5: must be a whole number"),
        ([], "volume=[]: must be a mapping, {KEY: VALUE, ...}"),
    ],
    ids=str,
)
def test_mistakes_in_arguments_are_one_line(values, message):
    with pytest.raises(ConfigError) as error:
        validated_arguments(Inherits, values, "volume")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("hint", "text", "expected"),
    [
        (str, "2024", "2024"),
        (str, "null", "null"),
        (str | None, "null", None),
        (str | None, "", ""),
        (Switch, "off", "off"),
        (int, "010", 8),  # as YAML 1.1 has it
        (int, "", ""),
        (int, "[", "["),
        (int, "2024-13-45", "2024-13-45"),
        (bool, "no", False),
        (list[int], "[1, 2]", [1, 2]),
        (list[str], "[01, a]", ["01", "a"]),
        (list[str] | None, "null", None),
        (Any, "{a: 1}", {"a": 1}),
        (str | dict[str, Any], "{a: 1}", {"a": 1}),
        (str | dict[str, Any], "3", "3"),
        (str | float, "3", 3.0),
        (str | float | None, "auto", "auto"),
    ],
    ids=str,
)
def test_what_is_typed_behind_a_flag(hint, text, expected):
    found = from_text(hint, text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "text",
    [
        "seed: [",
        "!!python/object/apply:os.getcwd []",
        "seed: !!int ''",
        "seed: !!bool maybe",
        "seed: !!timestamp x",
        "seed: 2024-13-45",
        "{[1]: 2}",
        "\x00",
        "[" * 3000,
        "[" * 60 + "]" * 60,
        "&a [*a]",
        "&a {b: *a}",
        "- &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"- &a [{', '.join(['*a'] * 10)}]\n" for _ in range(9)),
        "seed: 0x" + "f" * 9999,
        "path: 2024-01-01",
        "path: !!binary aGFsbG8=",
        "path: !!set {a, b}",
    ],
    ids=lambda text: text[:24],
)
def test_hostile_yaml_ends_in_one_line(text):
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        read_yaml(text)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grid: {a: [1]}\nseeds: 2\ngrid: {b: [2]}", "grid: is given twice, in lines 1 and 3; leave one out"),
        ("trainer: {views: 1, views: 2}", "views: is given twice, in line 1"),
        ("- a: 1\n  'a': 2", "a: is given twice, in lines 1 and 2"),
    ],
)
def test_no_key_is_lost_since_another_has_its_name(text, words):
    for numbers in (True, False):
        with pytest.raises(ValueError, match=words):
            read_yaml(text, numbers=numbers)


def test_what_is_plain_may_be_as_large_as_a_configuration_is():
    check_plain({"a": [1, 2.5, None, True, "x", {"b": (1,)}]})
    check_plain([0] * 49_000)
    for values in ([0] * 50_001, object(), {"a": {1, 2}}, 1 << 2000):
        with pytest.raises(ConfigError):
            check_plain(values)


def test_what_a_message_shows_is_one_line_and_short():
    assert shown("a\n  b") == "a b"
    assert (shown(None), shown(True), shown(2.0)) == ("null", "true", "2.0")
    assert len(shown("x" * 10_000)) < 120
    assert did_you_mean("seeed", ["seed", "device"]) == ", did you mean seed?"
    assert did_you_mean("zzz", ["seed", "device"]) == ""
    # a section that is right says nothing about the name in it
    assert did_you_mean("volume.self", ["volume", "volume.radius", "volume.init"]) == ""
    assert did_you_mean("class.weigth", ["class.height", "klass.weigth"]) == ", did you mean class.height?"
    assert did_you_mean("max_steps", ["seed", "trainer.max_steps"]) == ", did you mean trainer.max_steps?"


def test_every_field_of_the_configuration_has_a_hint_that_is_checked():
    """A hint that is not known would let everything through."""
    from mnist3d.runs.config import SECTIONS

    for name, section in SECTIONS.items():
        for each in dataclasses.fields(section):
            with pytest.raises(ConfigError, match=rf"^{name}\.{each.name}[=\[]"):
                validated(section, {each.name: {"a": object()}}, name)
