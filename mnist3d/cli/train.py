"""`mnist3d train`: sculpt a volume, or go on with a run."""

import logging
from collections.abc import Sequence

from ..runs.joining import joined
from ..runs.launcher import began_here, check_can_restart, place
from ..runs.session import sculpt, take_part
from .parser import parse_command_line


def main(arguments: Sequence[str]) -> None:
    """Parse, sculpt; of several processes the first does, and the others take part."""
    # What "auto" took, in the terminal: who falls back to something slow must hear of it.
    logging.basicConfig(format="%(message)s")
    with joined(place()) as (processes, watch):
        logging.getLogger("mnist3d").setLevel(logging.INFO if processes.first else logging.CRITICAL)
        if not processes.first:
            take_part(processes)
            return
        command = parse_command_line(arguments, began_here)
        check_can_restart(command.resume or command.run_dir)
        sculpt(command, processes, watch)
