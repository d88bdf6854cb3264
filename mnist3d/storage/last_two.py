"""The last two versions of files that belong together: the newest under their names, and the ones before.

`resume.pt` and `resume.previous.pt`. Whenever a writer is killed, each name that was there is there still, with a whole
file of one of the two versions.
"""

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from .atomic import sync_names, whole_files


def previous(path: Path) -> Path:
    """Where the version before the newest lies: `resume.previous.pt` of `resume.pt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_newest(folder: Path, contents: Mapping[str, bytes | memoryview], keep: bool = True) -> None:
    """Files of one moment; what had their names until now becomes the previous version.

    First all that is new is on disk under other names, then the old get their second names, then the new their own.

    Args:
        folder: where they lie; made where it is missing.
        contents: by name.
        keep: False where the present files are not known to be good: then the previous version stays as it is.

    Raises:
        WriteError: the disk is full, or the folder cannot be written; what was there is there still.
    """
    with whole_files(folder / next(iter(contents))) as place:
        for name, content in contents.items():
            with open(place / name, "wb") as file:
                file.write(content)
                file.flush()
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
