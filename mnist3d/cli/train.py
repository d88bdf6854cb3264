"""`mnist3d train`: sculpt a volume, or go on with a run."""

import logging
from collections.abc import Sequence

from ..runs.session import sculpt
from .parser import parse_command_line


def main(arguments: Sequence[str]) -> None:
    """Parse, sculpt."""
    # What "auto" took, in the terminal: who falls back to something slow must hear of it.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mnist3d").setLevel(logging.INFO)
    sculpt(parse_command_line(arguments))
