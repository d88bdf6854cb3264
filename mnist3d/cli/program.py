"""How every command ends: a user's mistake is one line and exit code 2."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ..callbacks.watchdog import WatchdogGaveUp
from ..errors import UserError


def run_command_line(main: Callable[[Sequence[str]], object]) -> NoReturn:
    """Call a program's `main` with the command line.

    A user's error becomes one line on stderr and exit code 2; a run that the watchdog ended, one line and code 1.
    """
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except WatchdogGaveUp as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        sys.exit(141)
    sys.exit(0)
