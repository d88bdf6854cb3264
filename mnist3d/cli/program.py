"""The command `mnist3d`: its subcommands, and how each ends. Nothing heavy is imported before one is chosen."""

import atexit
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NoReturn

from ..errors import RunsFailed, UserError, WatchdogGaveUp, one_line
from ..runs.signals import Ended, end_at_once, end_in_order, on_signals
from .terminal import NOBODY_READS, drop, lasting_terminal

COMMANDS = {
    "train": "train a volume, or resume a run",
    "sweep": "train many runs, here or on a cluster, and say which is best",
    "compare": "train volumes, losses or options side by side: one table, one figure",
    "view": "show a finished volume in the browser, or write a picture of forty views",
    "orbit": "render a turning volume: video, animation, frames, or a strip of views",
    "voxels": "write a volume as voxels for other programs",
    "mesh": "write the surface of a volume as a mesh, and say whether it can be printed",
    "points": "write a volume as a cloud of points, for engraving in glass and for point viewers",
    "page": "write a volume as one HTML file, to turn it in any browser",
    "convert": "write a volume as one of another kind, a TriPlane or HashGrid, fitted to it",
    "plot": "draw the losses, the scores and the view atlas of a run",
    "score": "measure how good and how diverse the views of a volume are",
    "reconstruct": "find one object from its images, from known or unknown directions",
    "project": "write images of a volume from random directions, with noise and their true poses",
    "fsc": "compare two volumes shell by shell in Fourier space",
    "presets": "list the presets, or print one",
    "doctor": 'say what is here, what "auto" takes and why, and what to install for more',
}


def mnist3d_command() -> NoReturn:
    """The installed command `mnist3d`, the same as `python -m mnist3d`."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        run_command(name, rest)
    run_command_line(_without_command, sys.argv[1:] or ["--help"], _called(""))


def run_command(name: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one subcommand and end the process.

    Args:
        name: of `COMMANDS`.
        arguments: what follows the name; default the command line of a program that is this subcommand alone.
    """
    # Before torch is imported: waiting OpenMP threads sleep instead of spinning, which costs nothing on a free machine
    # and saves a factor of ten on one that does something else as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    first = os.environ.get("RANK", "0") == "0"  # of several processes the first speaks
    if "RANK" in os.environ:  # torch would dump its stack where a process of the run ends
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    program = _called(name)

    def import_and_run(rest: Sequence[str]) -> object:
        from ..runs.at_work import said_if_slow

        with _ended_by_signals(program), said_if_slow("loading PyTorch ...") if first else nullcontext():
            if name == "train":
                from .early import refuse_early

                refuse_early(rest)
            main = _main_of(name)
        return main(rest)

    run_command_line(import_and_run, arguments, program)


def run_command_line(
    main: Callable[[Sequence[str]], object], arguments: Sequence[str] | None = None, program: str | None = None
) -> NoReturn:
    """Call a program's `main` with the command line, and end the process.

    Exit code 0; 1 and one line where the watchdog ended a run, or runs of a sweep failed; 2 and one line on stderr for
    a user's error, and where the machine lacks memory, disk or files; 128 + n after signal n, so 130 after Ctrl-C; 141
    where the reader of our output has gone.

    Args:
        main: is handed the arguments.
        arguments: default those of this process.
        program: what messages begin with; default the file that runs.
    """
    program = os.path.basename(sys.argv[0]) if program is None else program
    with lasting_terminal():
        code, line = _ending(main, sys.argv[1:] if arguments is None else arguments, program)
        if line:
            print(f"{program}: {one_line(line)}", file=sys.stderr)
    # All is said and done: while the interpreter takes itself apart, Ctrl-C is no longer an exception.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def _called(name: str) -> str:
    """What messages begin with. Looked up first of all, so that Ctrl-C is an exception as briefly as may be."""
    with _ended_by_signals(os.path.basename(sys.argv[0])):
        from ..invocation import program_name

        return program_name(name)


def _ended_by_signals(program: str) -> AbstractContextManager[None]:
    """For imports: some libraries take an exception for a failed one, and there is nothing to clean up yet."""
    return on_signals(lambda number: end_at_once(number, program), program)


def _ending(main: Callable[[Sequence[str]], object], arguments: Sequence[str], program: str) -> tuple[int, str]:
    """Exit code and last line of a command, "" for none."""
    try:
        with on_signals(end_in_order, program), _no_signal_ignored(program):
            main(arguments)
            if sys.stdout is not None:  # it is None where a shell closed it, `>&-`
                sys.stdout.flush()
    except UserError as error:
        return 2, f"error: {' '.join(str(error).split())}"
    except UnicodeEncodeError as error:
        if sys.getfilesystemencoding() == "utf-8":
            raise
        beyond = f"a name beyond {sys.getfilesystemencoding()}, all that file names have in this locale"
        return 2, f"error: {error.object!r}: {beyond}; set PYTHONUTF8=1"
    except (WatchdogGaveUp, RunsFailed) as error:
        return 1, str(error)
    except (KeyboardInterrupt, Ended) as error:
        _drop_what_nobody_reads()
        return (error.code, str(error)) if isinstance(error, Ended) else (130, "interrupted")
    except OSError as error:
        if error.filename is None and error.errno in NOBODY_READS:  # as in `... | head`
            _drop_what_nobody_reads()
            return 141, ""
        return 2, f"error: {_of_the_machine(error)}"
    except (MemoryError, RuntimeError, ImportError, SystemError) as error:
        return 2, f"error: {_of_the_machine(error)}"
    return 0, ""


def _of_the_machine(error: BaseException) -> str:
    """What a machine lacks, in words; what is no fault of the machine is raised again."""
    from ..storage.exhausted import out_of_memory, system_failure

    if memory := out_of_memory(error):
        return f"{memory}; lower the resolution, the size or the number of what was asked for, or end other programs"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        drop(sys.stdout)  # what a file has no room for is a `WriteError`
        return f"the output cannot be written ({error.strerror})"
    if failure := system_failure(error):
        return failure
    raise error


def _drop_what_nobody_reads() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        drop(sys.stdout)


@contextmanager
def _no_signal_ignored(program: str) -> Iterator[None]:
    """An exception that meets Python while it collects garbage is dropped there; that of a signal must not be."""
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt | Ended):
            end_at_once(getattr(dropped.exc_value, "code", 130) - 128, program)
        before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _main_of(name: str) -> Callable[[Sequence[str]], object]:
    """The `main` of a subcommand, whose module is imported here."""
    if name == "train":
        from .train import main
    elif name == "sweep":
        from .sweep import main
    elif name == "compare":
        from .compare import main
    elif name == "view":
        from .view import main
    elif name == "orbit":
        from .orbit import main
    elif name == "voxels":
        from .voxels import main
    elif name == "mesh":
        from .mesh import main
    elif name == "points":
        from .points import main
    elif name == "page":
        from .page import main
    elif name == "convert":
        from .convert import main
    elif name == "plot":
        from .plot import main
    elif name == "score":
        from .score import main
    elif name == "reconstruct":
        from .reconstruct import main
    elif name == "project":
        from .project import main
    elif name == "fsc":
        from .fsc import main
    elif name == "doctor":
        from .doctor import main
    else:
        from .presets import main
    return main


def _without_command(arguments: Sequence[str]) -> None:
    """`mnist3d` with a flag of its own, or with a command that there is not."""
    program, first = _called(""), arguments[0]
    if first in ("-h", "--help", "help"):
        print(_help(program))
    elif first in ("-V", "--version"):
        from ..version import __version__

        print(f"mnist3d {__version__}")
    elif first.startswith("-"):
        raise UserError(f"{first}: a command comes first, as in {program} train {first}; {program} --help lists them")
    else:
        from .tool_parser import one_of

        raise UserError(f"{first}: no such command{one_of(first, COMMANDS)}")


def _help(program: str) -> str:
    listed = "\n".join(f"  {name:12}{summary}" for name, summary in COMMANDS.items())
    return (
        f"usage: {program} COMMAND [ARGUMENTS]\n\n"
        f"Sculpt a 3D object out of 2D pictures.\n\n{listed}\n\n"
        f"Start with `{program} train`: it takes ten minutes and needs no GPU and no download.\n"
        f"`{program} COMMAND --help` lists the arguments of a command."
    )
