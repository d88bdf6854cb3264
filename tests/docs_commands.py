"""Whether command lines in the docs can be typed: they are read by the parser of their command, and never run.

In capitals stands what a reader fills in: RUN, NAME, FILE; N, PORT and the like for numbers; `--KEY VALUE` for any
flag.
"""

import argparse
import configparser
import contextlib
import functools
import io
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from docs_rules import Page

from mnist3d.cli.flags import full_parser
from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.presets import preset_names
from mnist3d.cli.program import COMMANDS
from mnist3d.errors import UserError
from mnist3d.invocation import PROGRAMS
from mnist3d.runs.config import SECTIONS
from mnist3d.volumes import OWN_VOLUMES, VoxelGrid
from tools.write_reference import parser_of

ROOT = Path(__file__).parent.parent
STARTS = "mnist3d", "python", "python3", "pip"
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]+\b")
NUMBER = re.compile(r"N|PORT|STEPS|MINUTES|SEED")
# Of a synopsis: [RUN | volume.safetensors], [--port N]; not the list in "{classes: [Bag, Boot]}".
OPTIONAL = re.compile(r"(?<!: )\[((?:--|[A-Z])[^]|]*)[^]]*\]")
SEPARATORS = "&&", "||", "|", ";", "&"


def wrong_commands(page: Page) -> list[str]:
    """Command lines of a page that its reader could not type, and flags that no command has."""
    typed = [(words, reason) for text in page.blocks for words in command_lines(text) for reason in complaints(words)]
    named = [(words, reason) for text in page.spans for words in command_lines(text) for reason in complaints(words)]
    wrong = [f"{page.path.name}: {shlex.join(words)}: {reason}" for words, reason in [*typed, *named]]
    everything = "\n".join([*page.blocks, *page.spans])
    for span in page.spans:
        flag = span.split()[0].partition("=")[0] if span.startswith("--") else ""
        if flag and not PLACEHOLDER.search(flag) and not (flag in _all_flags() or _of_others(flag, everything)):
            wrong.append(f"{page.path.name}: {flag}: no command has that flag")
    return wrong


def command_lines(code: str) -> Iterator[list[str]]:
    """The words of each call of mnist3d, python or pip in a piece of code."""
    for line in code.replace("\\\n", " ").splitlines():
        line = re.sub(r"(?:^|\s)#(?:\s.*)?$", "", line).strip().removeprefix("$ ")
        line = OPTIONAL.sub(r"\1", line).replace(" ...", "")
        if re.match(r"mnist3d(?: \w+)?: ", line) or not any(start in line for start in STARTS):
            continue  # a message of the program, or something else
        reader = shlex.shlex(line, posix=True, punctuation_chars=True)
        reader.whitespace_split, reader.commenters = True, ""
        try:
            words = list(reader)
        except ValueError:
            continue  # no shell reads that: a line of Python
        for command in _split(words):
            if command[0] in STARTS and len(command) > 1:
                yield command


def complaints(words: Sequence[str]) -> list[str]:
    """What is wrong with one call; nothing where it is a program that is not ours."""
    if words[0] == "pip":
        return _of_pip(words)
    if words[0] == "mnist3d":
        return _of_command(words[1], words[2:])
    if words[1] == "-m":
        return _of_command(words[3], words[4:]) if words[2] == "mnist3d" and len(words) > 3 else []
    scripts = {path: command for command, path in PROGRAMS.items()}
    if words[1] in scripts:
        return _of_command(scripts[words[1]], words[2:])
    script = ROOT / words[1]
    if not re.fullmatch(r"(?:\w+/)*\w+\.py", words[1]) or PLACEHOLDER.search(words[1]):
        return []
    if not script.is_file():
        return ["no such file"]
    flags = [word.partition("=")[0] for word in words[2:] if word.startswith("--")]
    text = script.read_text(encoding="utf-8")
    return [f"it has no {flag}" for flag in flags if f'"{flag}"' not in text and flag != "--help"]


def _of_command(name: str, arguments: Sequence[str]) -> list[str]:
    if PLACEHOLDER.fullmatch(name) or name in ("--help", "--version"):
        return []
    if name not in COMMANDS:
        return [f"no command {name}"]
    arguments = [*_filled_in(arguments)]
    presets = [value for flag, value in pairwise(arguments) if flag == "--config"]
    presets += arguments[:1] if name == "presets" else []
    for preset in presets:
        if re.fullmatch(r"[a-z]\w*", preset) and preset not in preset_names():
            return [f"no preset {preset}"]
    if name == "train":
        return _of_train(arguments, presets)
    return _refused(lambda: parser_of(name).parse_args(arguments))


def _of_train(arguments: list[str], presets: list[str]) -> list[str]:
    if "--help" in arguments:
        arguments.remove("--help")  # its text is of no interest here
    parser = full_parser(VoxelGrid, [], passed_over=[*OWN_VOLUMES.values()])
    unknown: list[str] = []
    refused = _refused(lambda: unknown.extend(parser.parse_known_args(arguments)[1]))
    flags = [word.partition("=")[0] for word in unknown if word.startswith("--")]
    others = " ".join(arguments)
    refused += [f"no flag {flag}" for flag in flags if not _of_others(flag, others)]
    concrete = not flags and not PLACEHOLDER.search(others) and "--resume" not in arguments
    if refused or not concrete or set(presets) - {*preset_names()} or _names_classes(others):
        return refused
    return _refused(lambda: parse_command_line(arguments))


def _of_pip(words: Sequence[str]) -> list[str]:
    """Extras that setup.cfg does not have."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    found = [extras for word in words for extras in re.findall(r"^(?:\.|mnist3d)\[(.*)\]", word)]
    asked = [name.strip() for extras in found for name in extras.split(",")]
    return [f"no extra {name}" for name in asked if name not in settings["options.extras_require"]]


def _refused(read: Callable[[], object]) -> list[str]:
    """What a parser says against it, in one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            read()
    except SystemExit as end:
        return [] if end.code in (0, None) else [" ".join(said.getvalue().split())]
    except (argparse.ArgumentError, UserError) as error:
        return [str(error)]
    return []


def _filled_in(arguments: Sequence[str]) -> Iterator[str]:
    """Without redirections and `--KEY VALUE`, and with a number for N."""
    words = iter(arguments)
    for word in words:
        if word in (">", "<", ">>") or re.fullmatch(r"--[A-Z_.]+", word):
            next(words, None)
        elif not re.fullmatch(r"--[A-Z_.]+=.*", word):
            yield "8" if NUMBER.fullmatch(word) else word


def _split(words: Sequence[str]) -> Iterator[list[str]]:
    """Single calls, without the variables that are set before them."""
    command: list[str] = []
    for word in [*words, ";"]:
        if word in SEPARATORS:
            if command:
                yield command
            command = []
        elif command or not re.fullmatch(r"\w+=\S*", word):
            command.append(word)


def _names_classes(text: str) -> bool:
    """Whether classes of others are named, which cannot be imported here."""
    return re.search(r"--(?:volume|objectives\.add) (?!mnist3d\.)\w+\.", text) is not None


def _of_others(flag: str, text: str) -> bool:
    """Whether a flag can be an option of a class of others that the same text names."""
    section, dot, _ = flag.removeprefix("--").partition(".")
    chooser = "--volume" if section == "volume" else "--objectives.add"
    return bool(dot) and section not in SECTIONS and re.search(rf"{chooser} (?!mnist3d\.)\w+\.", text) is not None


@functools.cache
def _all_flags() -> frozenset[str]:
    """Flags of all commands, of the programs in tools/ and benchmarks/, and --help."""
    train = full_parser(VoxelGrid, [], passed_over=[*OWN_VOLUMES.values()])
    parsers = [train, *(parser_of(name) for name in COMMANDS if name != "train")]
    found = {text for parser in parsers for action in parser._actions for text in action.option_strings}
    for script in [*ROOT.glob("tools/*.py"), *ROOT.glob("benchmarks/*.py")]:
        found |= set(re.findall(r'"(--\w+)"', script.read_text(encoding="utf-8")))
    return frozenset({*found, "--version"})
