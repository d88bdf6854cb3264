"""The last two versions of files that belong together: the newest under their names, and the ones before.

`resume.pt` and `resume.previous.pt`. Whenever a writer is killed, each name that was there is there still, with a whole
file of one of the two versions.
"""

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from .atomic import sync_names, whole_files


def previous(path: Path) -> Path:
    """Where the version before the newest lies: `resume.previous.pt` of `resume.pt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


Content = bytes | Callable[[Path], object]
"""Of a file: all of it, or what writes it to a path, piece by piece, where all of it would be too much at once."""


def write_newest(
    folder: Path, contents: Mapping[str, Content], keep: bool = True, written: Callable[[], object] | None = None
) -> None:
    """Files of one moment; what had their names until now becomes the previous version.

    First all that is new is on disk under other names, then the old get their second names, then the new their own.

    Args:
        folder: where they lie; made where it is missing.
        contents: by name.
        keep: False where the present files are not known to be good: then the previous version stays as it is.
        written: called when nothing more is read of what is written; the disk may still take a while.

    Raises:
        WriteError: the disk is full, or the folder cannot be written; what was there is there still.
    """
    with whole_files(folder / next(iter(contents))) as place:
        for name, content in contents.items():
            if callable(content):
                content(place / name)
            else:
                (place / name).write_bytes(content)
        if written is not None:
            written()
        for name in contents:
            with open(place / name, "rb+") as file:
                os.fsync(file.fileno())
        if keep and all(_is_plain(folder / name) for name in contents):
            for name in contents:
                second = place / previous(Path(name))
                _second_name(folder / name, second)
                os.replace(second, previous(folder / name))
            sync_names(folder)  # before the newest lose their first names


def _second_name(path: Path, second: Path) -> None:
    try:
        os.link(path, second)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, second)
        with open(second, "rb+") as copy:
            os.fsync(copy.fileno())


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
