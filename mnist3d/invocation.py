"""How this process was started, and so what to type next: who has no clone cannot type `python inference.py`."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

# In a clone each command has a program too; every other way of starting has `mnist3d COMMAND`.
PROGRAMS = {
    "train": "train.py",
    "view": "inference.py",
    "orbit": "tools/render_orbit.py",
    "voxels": "tools/export_voxels.py",
    "mesh": "tools/export_mesh.py",
    "points": "tools/export_points.py",
    "page": "tools/export_page.py",
    "plot": "tools/plot_run.py",
    "score": "tools/score_views.py",
}
CLONE = Path(__file__).resolve().parents[1]


def program_name(command: str) -> str:
    """What a message or a usage line calls a command: `train.py`, `mnist3d train` or `python -m mnist3d train`.

    Args:
        command: "train", or "" for the program as a whole.
    """
    if command in PROGRAMS and _from_clone():
        return Path(PROGRAMS[command]).name
    return f"{'python -m mnist3d' if _as_module() else 'mnist3d'} {command}".rstrip()


def to_type(command: str, *arguments: str | Path) -> str:
    """A command line that works as it stands, in the folder and in the way in which this process was started.

    Args:
        command: "view".
        arguments: what follows; quoted where a shell asks for it.
    """
    if command in PROGRAMS and _from_clone():
        words = [sys.orig_argv[0], _program(PROGRAMS[command])]
    elif _as_module():
        words = [sys.orig_argv[0], "-m", "mnist3d", command]
    else:
        words = [_installed(), command]
    words += [_as_argument(argument) for argument in arguments]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def _as_argument(argument: str | Path) -> str:
    """A path that begins with a dash would be read as a flag."""
    text = str(argument)
    return os.path.join(os.curdir, text) if isinstance(argument, Path) and text.startswith("-") else text


def _from_clone() -> bool:
    return Path(sys.argv[0]).resolve() in {CLONE / program for program in PROGRAMS.values()}


def _as_module() -> bool:
    return Path(sys.argv[0]).resolve() == Path(__file__).resolve().parent / "__main__.py"


def _program(program: str) -> str:
    """Its path, relative where the one that runs was named so."""
    absolute = CLONE / program
    return str(absolute) if Path(sys.argv[0]).is_absolute() else os.path.relpath(absolute)


def _installed() -> str:
    """`mnist3d` where a shell finds this one by that name, else its path."""
    started = sys.argv[0]  # no Path, which would take "./mnist3d" for "mnist3d"
    found = shutil.which("mnist3d")
    if Path(started).stem != "mnist3d":
        return "mnist3d"  # a notebook, or a program of somebody's own
    same = found is not None and Path(found).parent.resolve() == Path(started).parent.resolve()
    return "mnist3d" if same else started
