"""Files that are on disk whole or not at all, and the checks before the work."""

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ExportError, WriteError


def suffix_of(path: Path, known: Collection[str]) -> str:
    """The known suffix that a file name ends with, in lower case (.nii.gz is one suffix).

    Raises:
        ExportError: none of them.
    """
    name = path.name.lower()
    for suffix in sorted(known, key=len, reverse=True):
        if name.endswith(suffix) and name != suffix:
            return suffix
    given = path.suffix or "(none)"
    raise ExportError(f"output={path}: suffix {given}; must be one of {', '.join(known)}")


def check_output(path: Path, known: Collection[str]) -> str:
    """Fail before any work is done; returns the suffix.

    Raises:
        ExportError: an unknown suffix, a folder that does not exist or cannot be written, a folder of that name.
    """
    suffix = suffix_of(path, known)
    check_folder(path)
    if path.is_dir():
        raise ExportError(f"output={path}: is a folder; give the name of a file")
    return suffix


def check_folder(path: Path) -> None:
    """Fail where nothing can be written beside `path`.

    Raises:
        ExportError: its folder does not exist or cannot be written.
    """
    if not path.parent.is_dir():
        raise ExportError(f"output={path}: the folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ExportError(f"output={path}: the folder {path.parent} cannot be written; choose another")


@contextmanager
def whole_files(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; when the block ends well, all in it replaces its namesakes there.

    The folder of `path` is made where it is missing. A folder in the temporary one can replace an empty folder only.

    Whatever goes wrong in the block, nothing half-written stays and what was there before is unchanged. Should a rename
    fail after it, each file is either the new one or the old one, and the message says which were replaced.

    Raises:
        WriteError: the disk is full, or the folder cannot be written.
    """
    folder, replaced = None, []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        yield folder
        made = sorted(folder.iterdir())
        for file in (file for file in folder.rglob("*") if file.is_file()):
            with open(file, "rb+") as written:
                os.fsync(written.fileno())
        for file in made:
            os.replace(file, path.parent / file.name)
            replaced.append(file.name)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())[:200]
        left = f"of its files only {', '.join(replaced)} is new" if replaced else "what was there before is unchanged"
        raise WriteError(f"{path}: cannot be written ({reason}); {left}") from None
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> Path:
    """A file of this content, on disk whole or not at all; see `whole_files`.

    Raises:
        WriteError: the disk is full, or the folder cannot be written; what was there before is unchanged.
    """
    with whole_files(path) as folder:
        (folder / path.name).write_bytes(content)
    return path


def write_description(folder: Path, name: str, description: dict[str, Any]) -> None:
    """`NAME.json` in `folder`: what the file is and where it comes from."""
    (folder / f"{name}.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def describe_file(path: Path, opens_with: str) -> str:
    """The line at the end of a command: file, size, what opens it."""
    size = path.stat().st_size
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.iterdir())
    number = f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"
    return f"{path}: {number}; opens in {opens_with}"
