"""A command line's mistakes in one line: which key, what was given, what is allowed."""

import difflib
import inspect
import re
from pathlib import Path

from jsonargparse import ArgumentParser

from ..runs.building import import_volume_class
from ..runs.config import DEFAULT_VOLUME


def _one_line(message: str, parser: ArgumentParser) -> str:
    """jsonargparse's messages, several lines long, as one line that names key, value and what is allowed."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    key = ".".join(dict.fromkeys(keys))
    if unknown := re.search(r"unrecognized arguments: (.*)|Option '([^']+)' is not accepted", message):
        given = (unknown.group(1) or unknown.group(2)).split()[0]
        chosen = re.search(r"given class_path '([^']+)'", message)
        volume = DEFAULT_VOLUME if chosen is None else chosen.group(1)
        if keys == ["volume"]:
            given = f"volume.{given}"
        listed = "--help" if volume.endswith(DEFAULT_VOLUME.rpartition(".")[2]) else f"--volume.help {volume}"
        return f"{given}: no such key{_nearest(given, parser, volume)}; {listed} lists all"
    if unknown := re.search(r"Group '([^']+)' does not accept option '([^']+)'", message):
        given = ".".join(unknown.groups())
        return f"{given}: no such key{_nearest(given, parser)}; --help lists all"
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    expected = re.findall(r"Expected (?:an? )?(.+?)(?:\. Got|\.?$)", message, re.MULTILINE)
    if key == "config" and "does not exist" in message:
        return f"config={(given := _after(message, 'exist: '))}: no such file{_nearest_preset(given)}"
    if key == "config" and "not a file" in message:
        return f"config={_after(message, 'file: ')}: is a folder; give a YAML file, such as one of configs/"
    if message.startswith("Unexpected config:"):
        return "config: the file is empty or no mapping; its lines are KEY: VALUE, see configs/"
    if "Problems parsing config" in message:
        return f"config: not valid YAML ({_after(message, 'config: ')})"
    if key and value and expected:
        kinds = " or ".join(dict.fromkeys(_kind(kind) for kind in expected))
        return f"{key}={value.group(1).strip()}: allowed are {kinds}"
    return " ".join(message.split())


def _nearest_preset(given: str) -> str:
    presets = {path.stem: path for path in sorted(Path("configs").glob("*.yaml"))}
    near = difflib.get_close_matches(Path(given).stem, presets, n=1, cutoff=0.6)
    return f", did you mean {presets[near[0]]}?" if near else "; presets lie in configs/"


def _after(message: str, mark: str) -> str:
    return " ".join(message.partition(mark)[2].split()).strip("'")


def _kind(expected: str) -> str:
    literal = re.search(r"Literal\[(.*)\]", expected)
    if literal:
        return literal.group(1).replace("'", "")
    name = re.sub(r"<class '(.*)'>", r"\1", expected).removeprefix("typing.")
    return {
        "int": "whole numbers",
        "float": "numbers",
        "bool": "true or false",
        "NoneType": "null",
        "list": "lists",
    }.get(name, name)


def _nearest(given: str, parser: ArgumentParser, volume: str = DEFAULT_VOLUME) -> str:
    parameters = list(inspect.signature(import_volume_class(volume).__init__).parameters)
    volume_keys = [f"volume.{name}" for name in parameters[1:]]
    known = [action.dest for action in parser._actions if action.dest != "help"] + volume_keys
    dashes = "--" if given.startswith("--") else ""
    near = difflib.get_close_matches(given.lstrip("-").split("=")[0], known, n=1, cutoff=0.6)
    return f", did you mean {dashes}{near[0]}?" if near else ""
