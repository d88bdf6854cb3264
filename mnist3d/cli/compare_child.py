"""One step of a run as a process of its own that leaves nothing, started by `comparisons.warming_up`.

So what must be compiled is compiled where the run will be, on its device and with its cores. As a session of a run, it
ends when stdin closes.
"""

import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from .program import run_command_line
from .sweep_child import end_with_the_sweep


def main(arguments: Sequence[str]) -> NoReturn:
    """Build a trainer, and let it make a step.

    Args:
        arguments: as those of `train`.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as each command has it
    threading.Thread(target=end_with_the_sweep, name="end with the comparison", daemon=True).start()
    run_command_line(_one_step, arguments, "mnist3d train")


def _one_step(arguments: Sequence[str]) -> None:
    from ..runs.building import build_trainer
    from .parser import parse_command_line

    build_trainer(parse_command_line(arguments).config).step()


if __name__ == "__main__":
    main(sys.argv[1:])
