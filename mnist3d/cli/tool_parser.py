"""What the small tools share: their parser, which sculpture they open, and what their files say of themselves.

What it is: argparse for `tools/` and `inference.py`. What it is not: the configuration of a run (`parser`).
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ..runs.class_paths import import_volume_class
from ..runs.loading import Run, load_sculpture
from ..version import __version__


class OneLineParser(argparse.ArgumentParser):
    """argparse for the small tools, whose errors are one line as everywhere here, and where a typo is no other key."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Exit code 2 and one line, without the usage text."""
        print(f"{self.prog}: error: {message}; {self.prog} --help explains", file=sys.stderr)
        sys.exit(2)


def add_sculpture_arguments(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """`run` and `--volume`: which sculpture a tool opens, for `open_sculpture`.

    Args:
        parser: of the tool.
        default: what is opened where none is named, in words; None where one must be named.
    """
    shown = "run directory, volume.safetensors, or a volume.pt of the first 3DMNIST"
    parser.add_argument("run", nargs=None if default is None else "?", help=f"{shown}; {default}" if default else shown)
    parser.add_argument(
        "--volume",
        metavar="CLASS_PATH",
        help="class of the volume, where it is none of ours: package.Class; naming it is trusting it, "
        "as a file alone never causes an import",
    )


def open_sculpture(path: str | Path, volume: str | None = None) -> Run:
    """What `add_sculpture_arguments` asked for.

    Args:
        path: run directory or volume file.
        volume: class path that the user trusts, or None.

    Raises:
        ConfigError, RunError, VolumeFileError: the path, the class or the file will not do.
    """
    return load_sculpture(path, trusted=[] if volume is None else [import_volume_class(volume)])


def in_range(kind: type, low: int | float, high: int | float) -> Callable[[str], Any]:
    """An argparse type: a number of a kind from `low` to `high`; anything else is a user's error in one line."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not allowed; allowed are {kind.__name__}s from {low} to {high}"
            )
        return value

    return parse


def export_description(run: Run) -> dict[str, Any]:
    """What every exported file says of itself: run, step, configuration, version and this command."""
    return {**run.origin, "mnist3d": __version__, "command": [Path(sys.argv[0]).name, *sys.argv[1:]]}
