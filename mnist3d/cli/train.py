"""`train`: sculpt a volume, or go on with a run."""

import logging
from typing import NoReturn

from ..runs.session import sculpt
from .parser import parse_command_line
from .program import run_command_line


def train_command() -> NoReturn:
    """The installed command `mnist3d-train`, the same as `python train.py`."""
    # What "auto" took, in the terminal: who falls back to something slow must hear of it.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("mnist3d").setLevel(logging.INFO)
    run_command_line(lambda arguments: sculpt(parse_command_line(arguments)))
