"""Which run or volume file a tool opens, from what was typed: a path, a name under `runs/`, or nothing."""

import difflib
import sys
from pathlib import Path

from ..errors import RunError
from ..storage.labels import printable
from ..storage.run_directory import RUNS_ROOT, VOLUME_FILE, latest_run

PLACEHOLDERS = ("RUN", "NAME")  # what the docs write where a name belongs


def which_run(given: str | Path | None) -> Path:
    """The path to open. What was not typed as it stands is said on stderr.

    Args:
        given: what was typed; None for nothing, which is the newest run.

    Raises:
        RunError: nothing lies there; with the nearest name of those that are there.
    """
    root = Path(RUNS_ROOT)
    if given is None:
        return _said(latest_run(root), "the newest run")
    path = Path(given)
    if path.exists() or path.is_symlink():
        return path
    if len(path.parts) == 1 and (root / path / VOLUME_FILE).is_file():
        return _said(root / path, f"{path} lies in {RUNS_ROOT}")
    if path.name in PLACEHOLDERS and _names(root):
        raise RunError(f"{path}: stands for a run of yours; the newest is {latest_run(root)}")
    for folder in dict.fromkeys((path.parent, root)):
        if near := difflib.get_close_matches(path.name, _names(folder), n=1):
            raise RunError(f"{path}: no run lies there, did you mean {folder / near[0]}?")
    return path  # refused with its reason where it is opened


def _names(folder: Path) -> list[str]:
    try:
        return sorted(found.parent.name for found in folder.glob(f"*/{VOLUME_FILE}"))
    except OSError:
        return []


def _said(path: Path, why: str) -> Path:
    print(printable(f"{why}: {path}"), file=sys.stderr, flush=True)
    return path
