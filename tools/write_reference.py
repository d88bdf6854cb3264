"""Writes the tables of docs/command_line.md and docs/configuration.md from the parsers and the options themselves.

    python tools/write_reference.py            write them
    python tools/write_reference.py --check    exit code 1 if a table is not what the code says

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`; all else on these pages is written by hand.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from mnist3d.cli.flags import CHOICES, OF_THE_COMMAND, WITHOUT_VALUE, documented, full_parser, shown_default, summary_of
from mnist3d.cli.presets import preset_names, read_preset
from mnist3d.cli.program import COMMANDS
from mnist3d.cli.resuming import RESUMABLE
from mnist3d.runs.config import SECTIONS, Config
from mnist3d.runs.validation import NO_DEFAULT, Option, kinds, options_of
from mnist3d.volumes import OWN_VOLUMES, VoxelGrid

DOCS = Path(__file__).parent.parent / "docs"
PART = re.compile(r"<!-- generated: (\S+) -->\n(.*?)<!-- end -->", re.DOTALL)


def main(arguments: list[str] | None = None, docs: Path = DOCS) -> int:
    """Write, or check; the exit code.

    Args:
        arguments: default the command line.
        docs: the folder of the pages.
    """
    parser = argparse.ArgumentParser(description="Write the generated tables of the docs.")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a table is not what the code says")
    options = parser.parse_args(arguments)
    code = 0
    for name, parts in {"command_line.md": of_commands(), "configuration.md": of_options()}.items():
        page = docs / name
        text = page.read_text(encoding="utf-8")
        wrong = [*_misplaced(text, parts)]
        if options.check:
            wrong += [f"{part} is not what the code says" for part in _changed(text, parts)]
        else:
            page.write_text(PART.sub(lambda found, parts=parts: _marked(found, parts), text), encoding="utf-8")
        for line in wrong:
            print(f"docs/{name}: {line}; run python tools/write_reference.py", file=sys.stderr)
            code = 1
    return code


def parser_of(command: str) -> argparse.ArgumentParser:
    """All flags of a command; of `train`, with the volume that it takes by default."""
    return full_parser(VoxelGrid, []) if command == "train" else import_module(f"mnist3d.cli.{command}").build_parser()


def of_commands() -> dict[str, str]:
    """The parts of docs/command_line.md by their names."""
    rows = [(f"[`mnist3d {name}`](#{name})", summary) for name, summary in COMMANDS.items()]
    return {"commands": _table(("command", "what it does"), rows), **{name: _flags(name) for name in COMMANDS}}


def of_options() -> dict[str, str]:
    """The parts of docs/configuration.md by their names."""
    top = {name: option for name, option in options_of(Config).items() if name not in {*SECTIONS, *CHOICES}}
    presets = [(f"`{name}`", read_preset(name).splitlines()[0].removeprefix("# ")) for name in preset_names()]
    resumable = [*RESUMABLE, *(f"volume.{name}" for each in OWN_VOLUMES.values() for name in each.RESUMABLE)]
    return {
        "presets": _table(("preset", "what it is"), presets),
        "run": _keys(Config, "", top),
        **{f"volume.{name}": _section(volume, "volume.") for name, volume in OWN_VOLUMES.items()},
        **{name: _section(owner, f"{name}.") for name, owner in SECTIONS.items()},
        "resumable": ", ".join(f"`{key}`" for key in dict.fromkeys(resumable)) + ".\n",
    }


def _misplaced(text: str, parts: dict[str, str]) -> list[str]:
    """Parts that have no place, have two, or that there are none of."""
    placed = [name for name, _ in PART.findall(text)]
    return [
        *(f"{name} has no place: <!-- generated: {name} --> is missing" for name in parts if name not in placed),
        *(f"{name} is nothing that is generated" for name in placed if name not in parts),
        *(f"{name} stands there twice" for name in dict.fromkeys(placed) if placed.count(name) > 1),
    ]


def _changed(text: str, parts: dict[str, str]) -> list[str]:
    return [found[1] for found in PART.finditer(text) if found[1] in parts and found[0] != _marked(found, parts)]


def _marked(found: re.Match[str], parts: dict[str, str]) -> str:
    name = found[1]
    return f"<!-- generated: {name} -->\n\n{parts[name]}\n<!-- end -->" if name in parts else found[0]


def _flags(command: str) -> str:
    """A row for each flag that belongs to the command itself; those of a run's keys stand on another page."""
    parser, of_train = parser_of(command), {*OF_THE_COMMAND, *CHOICES, *WITHOUT_VALUE}
    rows = []
    for action in parser._actions:  # argparse has no public list of them
        if action.help in (None, argparse.SUPPRESS) or action.dest == "help":
            continue
        if command == "train" and action.dest not in of_train:
            continue
        meaning = str(action.help) % {**vars(action), "prog": parser.prog}
        rows.append((f"`{_typed(action)}`", _prose(meaning)))
    return _table(("argument", "meaning"), rows)


def _typed(action: argparse.Action) -> str:
    """An argument as one writes it: RUN, --largest, --port PORT."""
    choices = "{" + ",".join(map(str, action.choices or ())) + "}"
    value = choices if action.choices else str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return value
    return action.option_strings[-1] if action.nargs == 0 else f"{action.option_strings[-1]} {value}"


def _section(owner: type[Any], prefix: str) -> str:
    return f"{_prose(summary_of(owner))}.\n\n{_keys(owner, prefix, options_of(owner))}"


def _keys(owner: type[Any], prefix: str, options: dict[str, Option]) -> str:
    rows = [
        (
            f"`{prefix}{name}`",
            _prose(documented(owner, name)),
            "must be given" if option.default is NO_DEFAULT else f"`{shown_default(option.default)}`",
            _prose(kinds(option.hint)),
        )
        for name, option in options.items()
    ]
    return _table(("key", "meaning", "default", "value"), rows)


def _prose(text: str) -> str:
    """Plain text as Markdown: outside of code, what would be taken for a mark is escaped."""
    pieces = text.split("`")
    return "`".join(piece if odd % 2 else re.sub(r"[*|<\[\]]", r"\\\g<0>", piece) for odd, piece in enumerate(pieces))


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
