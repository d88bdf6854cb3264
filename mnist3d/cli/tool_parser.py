"""What all commands but `train` share: their parser, which sculpture they open, what their files say of themselves."""

import argparse
import difflib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import one_line
from ..version import __version__

if TYPE_CHECKING:  # `mnist3d presets` needs no torch
    from ..runs.loading import Run

# What argparse says, in all versions of Python.
UNKNOWN_FLAG = re.compile(r"unrecognized arguments: (\S+)")
WRONG_WORD = re.compile(r"argument (--[\w.]+): invalid choice: ['\"](.*?)['\"] \(")


class OneLineParser(argparse.ArgumentParser):
    """argparse whose errors are one line, and where a typo is no other flag."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Exit code 2 and one line, without the usage text."""
        print(f"{self.prog}: error: {one_line(self._with_the_nearest(message))}", file=sys.stderr)
        sys.exit(2)

    def _with_the_nearest(self, message: str) -> str:
        """A message of argparse with the flag or the word that was meant, else with where to look."""
        if unknown := UNKNOWN_FLAG.match(message):
            flag = unknown[1].partition("=")[0]
            near = difflib.get_close_matches(flag, self._option_string_actions, n=1) if flag.startswith("--") else []
            if near:
                return f"{flag}: no such flag, did you mean {near[0]}?"
        if (wrong := WRONG_WORD.match(message)) and (action := self._option_string_actions.get(wrong[1])):
            words = [str(word) for word in action.choices or ()]
            near = difflib.get_close_matches(wrong[2], words, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            return f"{wrong[1]}={wrong[2]}: must be one of {', '.join(words)}{meant}"
        return f"{message}; {self.prog} --help explains"


def one_of(given: str, known: Iterable[str]) -> str:
    """How a message about an unknown name goes on: with the nearest of the known ones, or with all."""
    known = list(known)
    near = difflib.get_close_matches(given, known, n=1)
    return f", did you mean {near[0]}?" if near else f"; must be one of {', '.join(known)}"


def add_sculpture_arguments(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """`run` and `--volume`: which sculpture a tool opens, for `open_sculpture`.

    Args:
        parser: of the tool.
        default: what is opened where none is named, in words; None: the newest run.
    """
    add_run_argument(parser, default=default)
    parser.add_argument(
        "--volume",
        metavar="CLASS_PATH",
        help="class of the volume, package.Class, if it is not one of mnist3d; this imports its code, "
        "so name only a class that you trust",
    )


def add_run_argument(parser: argparse.ArgumentParser, *, default: str | None = None, also: str = "") -> None:
    """`run` alone; arguments as of `add_sculpture_arguments`, and what else it may be, in words."""
    from ..storage.run_directory import RUNS_ROOT

    shown = f"run directory, volume.safetensors, {also}or volume.pt of 3DMNIST, an earlier project"
    parser.add_argument("run", nargs="?", help=f"{shown}; {default or f'default the newest run under {RUNS_ROOT}/'}")


def add_trust_argument(parser: argparse.ArgumentParser) -> None:
    """`--trust`: whether a tool may do what a run directory asks for, and not only read what lies in it."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the run have its images read in the folder that its config.yaml names, or downloaded, and views "
        "rendered at a size that takes hours; needed for images other than mnist_5k",
    )


def add_seed_argument(parser: argparse.ArgumentParser, of: str, most: int = 2**63 - 1) -> None:
    """`--seed`.

    Args:
        parser: of the tool.
        of: whose, in words that end before the default.
        most: largest seed.
    """
    parser.add_argument("--seed", type=in_range(int, 0, most), default=0, help=f"{of} (default %(default)s)")


def add_port_argument(parser: argparse.ArgumentParser, flag: str, default: int) -> None:
    """The port of a page that a tool serves."""
    parser.add_argument(
        flag,
        metavar="PORT",
        type=in_range(int, 0, 65535),
        default=default,
        help="port of the page, 0 to 65535; if it is taken, the next free one (default %(default)s)",
    )


def open_sculpture(path: str | Path | None, volume: str | None = None) -> "Run":
    """What `add_sculpture_arguments` asked for.

    Args:
        path: run directory or volume file; None for the newest run.
        volume: class path that the user trusts, or None.

    Raises:
        ConfigError, RunError, VolumeFileError: an invalid path, class or file.
    """
    from ..runs.class_paths import import_volume_class
    from ..runs.loading import load_sculpture
    from .which_run import which_run

    return load_sculpture(which_run(path), trusted=[] if volume is None else [import_volume_class(volume)])


def in_range(kind: type, low: int | float, high: int | float) -> Callable[[str], Any]:
    """An argparse type: a number of a kind from `low` to `high`; anything else is a user's error in one line."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r}: must be {'a whole number' if kind is int else 'a number'} from {low} to {high}"
            )
        return value

    return parse


def export_description(run: "Run") -> dict[str, Any]:
    """What every exported file says of itself: run, step, configuration, version and this command."""
    return {**run.origin, "mnist3d": __version__, "command": [Path(sys.argv[0]).name, *sys.argv[1:]]}
