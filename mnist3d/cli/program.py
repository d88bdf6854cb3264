"""The command `mnist3d`: its subcommands, and how each ends. Nothing heavy is imported before one is chosen."""

import errno
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ..errors import UserError, WatchdogGaveUp
from ..invocation import program_name
from ..version import __version__
from .tool_parser import one_of

COMMANDS = {
    "train": "train a volume, or resume a run",
    "view": "show a finished volume in the browser, or write a picture of forty views",
    "orbit": "render a turning volume: video, animation, frames, or a strip of views",
    "voxels": "write a volume as voxels for other programs",
    "mesh": "write the surface of a volume as a mesh, and say whether it can be printed",
    "page": "write a volume as one HTML file, to turn it in any browser",
    "plot": "draw the losses, the scores and the view atlas of a run",
    "score": "measure how good and how diverse the views of a volume are",
    "presets": "list the presets, or print one",
}


def mnist3d_command() -> NoReturn:
    """The installed command `mnist3d`, the same as `python -m mnist3d`."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        run_command(name, rest)
    run_command_line(_without_command, sys.argv[1:] or ["--help"], program_name(""))


def run_command(name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one subcommand and end the process.

    Args:
        name: of `COMMANDS`.
        arguments: what follows the name; default the command line of a program that is this subcommand alone.
    """
    # Before torch is imported: waiting OpenMP threads sleep instead of spinning, which costs nothing on a free machine
    # and saves a factor of ten on one that does something else as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    run_command_line(lambda rest: _main_of(name)(rest), arguments, program_name(name))


def run_command_line(
    main: Callable[[Sequence[str]], object], arguments: Sequence[str] | None = None, program: str | None = None
) -> NoReturn:
    """Call a program's `main` with the command line, and end the process.

    Exit code 0; 1 and one line where the watchdog ended a run; 2 and one line on stderr for a user's error; 130 after
    Ctrl-C; 141 where the reader of our output has gone.

    Args:
        main: is handed the arguments.
        arguments: default those of this process.
        program: what messages begin with; default the file that runs.
    """
    program = os.path.basename(sys.argv[0]) if program is None else program
    _escape_what_the_terminal_lacks()
    try:
        main(sys.argv[1:] if arguments is None else arguments)
        if sys.stdout is not None:  # it is None where a shell closed it, `>&-`
            sys.stdout.flush()
    except UserError as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except UnicodeEncodeError as error:
        if sys.getfilesystemencoding() == "utf-8":
            raise
        beyond = f"a name beyond {sys.getfilesystemencoding()}, all that file names have in this locale"
        print(f"{program}: error: {error.object!r}: {beyond}; set PYTHONUTF8=1", file=sys.stderr)
        sys.exit(2)
    except WatchdogGaveUp as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        _drop_output()
        sys.exit(141)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:  # what a file has no room for is a `WriteError`
            raise
        print(f"{program}: error: the output cannot be written ({error.strerror})", file=sys.stderr)
        _drop_output()
        sys.exit(2)
    sys.exit(0)


def _escape_what_the_terminal_lacks() -> None:
    r"""Letters beyond a terminal's encoding, as in the name of a run, are printed as \xf6 and end no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None where a shell closed it; something else in a notebook
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still to be printed goes nowhere, or the interpreter complains at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main_of(name: str) -> Callable[[Sequence[str]], object]:
    """The `main` of a subcommand, whose module is imported here."""
    if name == "train":
        from .train import main
    elif name == "view":
        from .view import main
    elif name == "orbit":
        from .orbit import main
    elif name == "voxels":
        from .voxels import main
    elif name == "mesh":
        from .mesh import main
    elif name == "page":
        from .page import main
    elif name == "plot":
        from .plot import main
    elif name == "score":
        from .score import main
    else:
        from .presets import main
    return main


def _without_command(arguments: Sequence[str]) -> None:
    """`mnist3d` with a flag of its own, or with a command that there is not."""
    program, first = program_name(""), arguments[0]
    if first in ("-h", "--help", "help"):
        print(_help(program))
    elif first in ("-V", "--version"):
        print(f"mnist3d {__version__}")
    elif first.startswith("-"):
        raise UserError(f"{first}: a command comes first, as in {program} train {first}; {program} --help lists them")
    else:
        raise UserError(f"{first}: no such command{one_of(first, COMMANDS)}")


def _help(program: str) -> str:
    listed = "\n".join(f"  {name:9}{summary}" for name, summary in COMMANDS.items())
    return (
        f"usage: {program} COMMAND [ARGUMENTS]\n\n"
        f"Sculpt a 3D object out of 2D pictures.\n\n{listed}\n\n"
        f"Start with `{program} train`: it takes ten minutes and needs no GPU and no download.\n"
        f"`{program} COMMAND --help` lists the arguments of a command."
    )
