"""Files that are on disk whole or not at all, and the checks before the work."""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import ExportError, WriteError

# Held by the writer of a temporary folder. One that nobody holds belongs to a writer that was killed.
WRITER_LOCK = ".writer"
TRIES = 100
TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}", re.DOTALL)  # as `tempfile.mkdtemp` names it


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
    fail after it, each file is either the new one or the old one, and the message says which were replaced. What an
    earlier writer of `path` left when it was killed is removed.

    Raises:
        WriteError: the disk is full, or the folder cannot be written.
    """
    folder, lock, replaced = None, None, []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_litter(path.parent, path.name)
        folder, lock = _temporary_folder(path)
        yield folder
        made = sorted(file for file in folder.iterdir() if file.name != WRITER_LOCK)
        for file in (file for file in folder.rglob("*") if file.is_file()):
            with open(file, "rb+") as written:
                os.fsync(written.fileno())
        for file in made:
            os.replace(file, path.parent / file.name)
            replaced.append(file.name)
        sync_names(path.parent)
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())[:200]
        left = f"of its files only {', '.join(replaced)} is new" if replaced else "what was there before is unchanged"
        raise WriteError(f"{path}: cannot be written ({reason}); {left}") from None
    finally:
        if folder is not None:
            remove_with_lock(folder, lock)


def remove_litter(folder: Path, name: str | None = None) -> None:
    """Remove the temporary folders of writers that were killed; those of writers at work stay, and so do links.

    Age does not decide, as clocks jump: a folder goes when it is empty, or when the lock within it is free.

    Args:
        folder: where they lie.
        name: of the file that was written; default any.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            ours = TEMPORARY.fullmatch(entry.name)
            if ours is None or name not in (None, ours["name"]) or not entry.is_dir(follow_symlinks=False):
                continue
            with suppress(OSError):
                os.rmdir(entry.path)  # killed before it could lock
                continue
            if not os.path.isfile(os.path.join(entry.path, WRITER_LOCK)):
                continue  # somebody else's
            lock = FileLock(os.path.join(entry.path, WRITER_LOCK))
            with suppress(OSError, Timeout, NotImplementedError):
                lock.acquire(timeout=0)
                remove_with_lock(Path(entry.path), lock)


def _temporary_folder(path: Path) -> tuple[Path, FileLock | None]:
    """A new one beside `path`, and the lock that says that its writer lives; None where the disk knows no locks."""
    for _ in range(TRIES):
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        lock = FileLock(folder / WRITER_LOCK)
        try:
            lock.acquire(timeout=0)
            return folder, lock
        except (FileNotFoundError, Timeout):
            continue  # another writer of this path came in between and took the folder for litter
        except NotImplementedError:
            return folder, None
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    raise OSError(errno.EBUSY, "other writers of it keep coming in between")


def remove_with_lock(folder: Path, lock: FileLock | None) -> None:
    """Remove a folder and what is in it, and let go of the lock that lies in it.

    The lock goes last: who is killed on the way leaves what the next writer knows for litter.
    """
    with suppress(OSError):
        for child in folder.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child, ignore_errors=True)
            elif lock is None or child.name != Path(lock.lock_file).name:
                child.unlink(missing_ok=True)
    if lock is not None and os.name == "nt":
        lock.release()  # an open file cannot be removed there
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        lock.release()


def sync_names(folder: Path) -> None:
    """The renames are on disk too; where a folder cannot be opened or synced, the system sees to it in its own time."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


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
