"""The flags of `train`, generated from the configuration's dataclasses and from constructors, with their `--help`.

Names, type hints, defaults and the `Args:` of docstrings become argparse's. Values are checked in `runs.validation`.
"""

import argparse
import inspect
import re
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from ..invocation import program_name
from ..runs.config import SECTIONS, Config
from ..runs.validation import NO_DEFAULT, Option, from_text, options_of
from ..training.objectives.base import Objective
from ..volumes import Volume

OF_THE_COMMAND: dict[str, tuple[str, Any, str]] = {  # metavar, hint and meaning of what belongs to no run
    "config": (
        "FILE",
        str,
        "YAML file with any of the keys below, or the name of a preset; may be repeated, later ones win.",
    ),
    "run_dir": ("FOLDER", str | None, "Folder for the new run; default runs/<time>-<preset>."),
    "resume": ("FOLDER", str | None, "Folder of the run to continue."),
}
WITHOUT_VALUE = {  # likewise
    "print_config": "Print the complete configuration as YAML, and exit.",
    "trust": "With --resume: let the run read the folders and files that its config.yaml names, and download. Classes "
    "of other packages must be named all the same.",
}
CHOICES = {  # what chooses a class, before that class's options are known
    "volume": "Class of the volume: VoxelGrid (the default), FourierMLP, HashGrid, SparseGrid, TriPlane, VMGrid, or "
    "package.Class of another package.",
    "volume.class_path": argparse.SUPPRESS,
    "objectives": argparse.SUPPRESS,
    "objectives.add": "An objective (a loss) to add, package.Class of another package; may be repeated.",
}


class _Given(argparse.Action):
    """Appends (key, value) to `given`, so that all that was typed stays in order."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, hint: Any, **rest: Any) -> None:
        super().__init__(option_strings, dest, default=argparse.SUPPRESS, **rest)
        self.hint = hint

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        namespace.given.append((self.dest, from_text(self.hint, values)))


def choosing_parser() -> argparse.ArgumentParser:
    """The flags that say which files and classes belong to a run: what must be read before all others are known."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.set_defaults(given=[])
    _add_choices(parser)
    return parser


def full_parser(
    volume: type[Volume], objectives: Sequence[type[Objective]], *, passed_over: Sequence[type[Volume]] = ()
) -> argparse.ArgumentParser:
    """All flags of a run.

    Args:
        volume: its class.
        objectives: those of somebody else's.
        passed_over: volume classes whose flags are taken too, but not shown.
    """
    parser = argparse.ArgumentParser(
        prog=program_name("train"),
        usage="%(prog)s [--config FILE] [--KEY VALUE ...]",
        description="Train a volume whose views look like the given images.",
        epilog="For the options of another volume, type --volume CLASS_PATH --help; of another objective, "
        "--objectives.add CLASS_PATH --help. In the progress line D, V and T are the losses of discriminator, volume "
        "and targets. The bars in brackets are one a class: the share of the views in which the discriminator reads it "
        "now.",
        exit_on_error=False,
        allow_abbrev=False,  # a typo must not become another key
    )
    parser.set_defaults(given=[])
    _add_choices(parser)
    for name, option in options_of(Config).items():
        if name not in SECTIONS and name not in CHOICES:
            _add_option(parser, name, option, documented(Config, name))
    add_volume_options(parser, volume)
    for name, option in options_of(volume).items():
        _add_unlisted(parser, f"volume.init_args.{name}", f"volume.{name}", option.hint)  # as a YAML file has it
    others = {name: option for other in passed_over for name, option in options_of(other).items()}
    for name in others.keys() - options_of(volume).keys():
        _add_unlisted(parser, f"volume.{name}", f"volume.{name}", others[name].hint)
    for section, owner in _sections(objectives).items():
        _add_unlisted(parser, section, section, dict[str, Any])
        group = parser.add_argument_group(f"{summary_of(owner)} (--{section})")
        for name, option in options_of(owner).items():
            _add_option(group, f"{section}.{name}", option, documented(owner, name))
    return parser


def add_volume_options(parser: argparse.ArgumentParser, volume: type[Volume]) -> None:
    """The arguments of a volume's constructor as flags; what is typed is appended to `given`, which must be a list."""
    parts = parser.add_argument_group(f"{volume.__name__}: {summary_of(volume)} (--volume)")
    for name, option in options_of(volume).items():
        _add_option(parts, f"volume.{name}", option, documented(volume, name))


def add_unlisted_options(parser: argparse.ArgumentParser, volumes: Sequence[type[Volume]]) -> None:
    """The same of several volumes, not shown by `--help`."""
    found = {name: option for volume in volumes for name, option in options_of(volume).items()}
    for name, option in found.items():
        _add_unlisted(parser, f"volume.{name}", f"volume.{name}", option.hint)


def known_keys(volume: type[Volume], objectives: Sequence[type[Objective]]) -> list[str]:
    """What can be written behind `--`, for who has mistyped it."""
    owners = {"": Config, "volume": volume, **_sections(objectives)}
    keys = [f"{section}.{name}" for section, owner in owners.items() for name in options_of(owner)]
    return [*OF_THE_COMMAND, *WITHOUT_VALUE, "help", "objectives.add", *(key.lstrip(".") for key in keys)]


def _sections(objectives: Sequence[type[Objective]]) -> dict[str, type[Any]]:
    return {**SECTIONS, **{objective.name: objective for objective in objectives}}


def _add_choices(parser: argparse.ArgumentParser) -> None:
    for key, (metavar, hint, meaning) in OF_THE_COMMAND.items():
        parser.add_argument(f"--{key}", action=_Given, hint=hint, metavar=metavar, help=meaning)
    for key, meaning in CHOICES.items():
        hint = {"volume": str | dict[str, Any], "objectives": list[Any]}.get(key, str)
        parser.add_argument(f"--{key}", dest=key, action=_Given, hint=hint, metavar="CLASS_PATH", help=meaning)
    for key, meaning in WITHOUT_VALUE.items():
        parser.add_argument(f"--{key}", action="store_true", help=meaning)


def _add_unlisted(parser: argparse.ArgumentParser, flag: str, key: str, hint: Any) -> None:
    parser.add_argument(f"--{flag}", dest=key, action=_Given, hint=hint, help=argparse.SUPPRESS)


def _add_option(group: Any, key: str, option: Option, meaning: str) -> None:
    choices = choices_of(option.hint)
    switch = {"nargs": "?", "const": "true"} if option.hint is bool and option.default is False else {}
    kind = "" if choices else f"type: {_type(option.hint)}, "
    default = "must be given" if option.default is NO_DEFAULT else f"default: {shown_default(option.default)}"
    group.add_argument(
        f"--{key}",
        dest=key,
        action=_Given,
        hint=option.hint,
        **switch,
        metavar=f"{{{','.join(choices)}}}" if choices else key.rpartition(".")[2].upper(),
        help=f"{meaning} ({kind}{default})".strip().replace("%", "%%"),
    )


def choices_of(hint: Any) -> list[str]:
    """All that can be typed where these are words, true and false; else none."""
    if get_origin(hint) is Literal:
        return [str(word) for word in get_args(hint)]
    parts = get_args(hint)
    if not any(get_origin(part) is Literal for part in parts):
        return []
    found = [["true", "false"] if part is bool else choices_of(part) for part in parts]
    return [word for words in found for word in words] if all(found) else []


def _type(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)
    return re.sub(r"\bNoneType\b|\bNone\b", "null", text.replace("typing.", ""))


def shown_default(default: Any) -> str:
    if default is None or isinstance(default, bool):
        return "null" if default is None else str(default).lower()
    return str(default)


def summary_of(owner: type[Any]) -> str:
    """The first line of a class's own docstring, without its full stop."""
    lines = inspect.cleandoc(owner.__doc__ or "").splitlines()
    return lines[0].rstrip(".").replace("%", "%%") if lines else owner.__name__


def documented(owner: type[Any], name: str) -> str:
    """What the `Args:` of a class, of its constructor, or of a class above it say of one argument."""
    for parent in owner.__mro__:
        for holder in (parent, vars(parent).get("__init__")):
            if name in (found := _arguments(inspect.cleandoc(getattr(holder, "__doc__", None) or ""))):
                return found[name]
    return ""


def _arguments(docstring: str) -> dict[str, str]:
    """The entries below `Args:` of a Google docstring, each on one line."""
    found: dict[str, str] = {}
    lines = docstring.partition("Args:\n")[2].splitlines() or [""]
    name, indent = "", len(lines[0]) - len(lines[0].lstrip())
    for line in lines:
        if line and not line.startswith(" "):
            break  # the next heading
        if entry := re.match(rf" {{{indent}}}(\w+)(?: \([^)]*\))?: *(.*)", line):
            name = entry.group(1)
            found[name] = entry.group(2)
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return found
