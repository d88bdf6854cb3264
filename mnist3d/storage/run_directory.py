"""Everything a run leaves on disk, each file whole or not there at all.

Names, places and atomic writes. Callers hand it bytes, text, dictionaries and pictures.
"""

import io
import json
import os
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..errors import RunError, WriteError
from ..invocation import to_type
from .atomic import TEMPORARY, remove_litter, remove_with_lock, write_atomically
from .last_two import Content, write_newest
from .own_files import append_line, check_own
from .records import lines_until, read_records

if TYPE_CHECKING:  # a used folder is refused before anything heavy is imported
    import numpy as np

RUNS_ROOT = "runs"  # where new runs go, in the folder in which a command is typed
VOLUME_FILE = "volume.safetensors"
RESUME_FILE = "resume.pt"
CONFIG_FILE = "config.yaml"
STATS_FILE = "stats.jsonl"
LOCK_FILE = ".lock"
VIEWS_FOLDER = "pictures/"
# What stands in a folder before the first step; a run that never made one leaves none of it.
OF_THE_START = (LOCK_FILE, CONFIG_FILE, "environment.json", "tensorboard")
# What is written into as it is; every other file is replaced whole, and so is a link in its place.
WRITTEN_FILES, WRITTEN_FOLDERS = (STATS_FILE, LOCK_FILE), (VIEWS_FOLDER, "tensorboard")
CLOCK_ERROR = 3600.0  # s: a file from further in the future was written while the clock was wrong


class RunDirectory:
    """A folder `runs/<time>-<preset>/` and the names of what lies in it.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: FileLock | None = None
        self._taken: os.stat_result | None = None  # the folder that was taken, to know it again
        self._made = False

    @classmethod
    def create(cls, path: str | Path | None, root: str | Path, preset: str, begun: bool = False) -> "RunDirectory":
        """A new folder, taken for this process.

        Args:
            path: where; None for `root/<time>-<preset>`.
            root: parent of the folders that are named by time.
            preset: short name of what is run.
            begun: whether what the folder holds is an earlier try's that saved nothing, and so makes room.

        Raises:
            RunError: the folder holds something already.
            WriteError: it cannot be made.
        """
        if path is None:
            stem = f"{datetime.now():%Y%m%d-%H%M%S}-{preset}"
            tries = [Path(root) / stem, *(Path(root) / f"{stem}-{k}" for k in range(2, 100))]
        else:
            tries = [Path(path)]
        for folder in tries:
            made = not folder.is_dir()
            try:
                folder.mkdir(parents=True, exist_ok=path is not None)
            except FileExistsError:
                if folder.is_dir():
                    continue  # another run began in the same second
                check_unused(folder)
                raise WriteError(f"run_dir={folder}: cannot be made (a file is in the way)") from None
            except OSError as error:
                raise WriteError(f"run_dir={folder}: cannot be made ({error.strerror})") from None
            run = cls(folder)
            if begun:
                run.take()
                run.cut_stats(-1)
                return run
            check_unused(folder)
            run.take()  # which removes litter
            try:
                check_unused(folder, but_for_litter=False)  # another may have had it in between
            except RunError:
                run.release()
                raise
            run._made = made
            return run
        raise RunError(f"run_dir: no free name under {root}")

    def take(self, *, make: bool = False) -> None:
        """Keep other processes out until `release`, or until this process ends; remove what a killed one left.

        Args:
            make: the folder where it is missing; `release` removes it again where nothing has begun.

        Raises:
            RunError: another process writes here, or something that would be written to is a link or no file.
            WriteError: the folder cannot be made or written.
        """
        if make and not self.path.exists():
            try:
                self.path.mkdir(parents=True)
            except OSError as error:
                raise WriteError(f"{self.path}: cannot be made ({error.strerror})") from None
            self._made = True
        for name in WRITTEN_FILES:
            check_own(self.path / name, "file")
        for name in WRITTEN_FOLDERS:
            check_own(self.path / name, "folder")
        with suppress(OSError):
            if (self.path / LOCK_FILE).stat().st_size and (self.path / LOCK_FILE).stat().st_nlink > 1:
                raise RunError(f"{self.path / LOCK_FILE}: holds something, and has another name; remove it")
        lock = FileLock(self.path / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"run_dir={self.path}: in use by another process; wait, or give another folder") from None
        except NotImplementedError:
            raise WriteError(
                f"run_dir={self.path}: its disk knows no locks, so a second process could write there too; "
                "choose a folder on another disk"
            ) from None
        except OSError as error:
            raise WriteError(f"run_dir={self.path}: cannot be written ({error.strerror})") from None
        self._lock, self._taken = lock, os.stat(self.path)
        for folder in (self.path, self.path / VIEWS_FOLDER):
            remove_litter(folder)

    def release(self) -> None:
        """Let others write here. A folder that this process has made for a run that never began is removed."""
        if self._lock is None:
            return
        if self._made and {child.name for child in _children(self.path)} <= {*OF_THE_START}:
            remove_with_lock(self.path, self._lock)
        self._lock.release()
        self._lock, self._taken, self._made = None, None, False

    @property
    def volume_path(self) -> Path:
        """The averaged volume: what people look at and share."""
        return self.path / VOLUME_FILE

    @property
    def resume_path(self) -> Path:
        """All that an exact continuation needs."""
        return self.path / RESUME_FILE

    @property
    def config_path(self) -> Path:
        """The resolved configuration: the run can be repeated from it alone."""
        return self.path / CONFIG_FILE

    def write(self, name: str, content: bytes | str) -> Path:
        """A file of the run, whole or not at all; returns its path.

        Raises:
            WriteError: the disk is full, or the folder cannot be written.
            RunError: it would be written through a link.
        """
        self._check_same_folder()
        if "/" in name:
            check_own((self.path / name).parent, "folder")
        return write_atomically(self.path / name, content.encode() if isinstance(content, str) else content)

    def write_newest(
        self, contents: Mapping[str, Content], keep: bool = True, written: Callable[[], object] | None = None
    ) -> None:
        """Files of one moment, each whole or not at all; what they replace is kept, see `last_two.write_newest`.

        Raises:
            WriteError: the disk is full, or the folder cannot be written; what was there is there still.
        """
        self._check_same_folder()
        write_newest(self.path, contents, keep, written)

    def write_json(self, name: str, value: Any) -> Path:
        """`write` of indented JSON."""
        return self.write(name, json.dumps(value, indent=2) + "\n")

    def write_picture(self, name: str, picture: "np.ndarray") -> Path:
        """`write` of a uint8 picture (H, W) or (H, W, 3) under `pictures/`, as PNG."""
        return self.write(f"{VIEWS_FOLDER}{name}", png_bytes(picture))

    def append_stats(self, record: dict[str, Any]) -> None:
        """One line of `stats.jsonl`, or none of it.

        Raises:
            WriteError: the disk is full, or the folder cannot be written.
            RunError: the file is a link, or no file.
        """
        self._check_same_folder()
        check_own(self.path / STATS_FILE, "file")
        try:
            append_line(self.path / STATS_FILE, json.dumps(record).encode() + b"\n")
        except OSError as error:
            raise WriteError(f"{self.path / STATS_FILE}: cannot be written ({error.strerror})") from None

    def read_stats(self) -> list[dict[str, Any]]:
        """The lines of `stats.jsonl`, each with its step; see `read_records`.

        Raises:
            RunError: it cannot be read, is no plain file, or is too large.
        """
        return read_records(self.path / STATS_FILE)

    def cut_stats(self, last_step: int) -> None:
        """Drop the lines after a step, which a resumed run will write again."""
        kept = lines_until(self.path / STATS_FILE, last_step)
        if (self.path / STATS_FILE).is_file():
            self.write(STATS_FILE, kept)

    def _check_same_folder(self) -> None:
        """One that was taken and has gone is not made anew: its lock and what else it held would be missing there."""
        if self._taken is None:
            return
        try:
            same = os.path.samestat(os.stat(self.path), self._taken)
        except OSError:
            same = False
        if not same:
            raise WriteError(f"run_dir={self.path}: was moved or removed while the run went on; move it back")


def check_unused(folder: Path, *, but_for_litter: bool = True) -> None:
    """Fail where a new run cannot begin.

    Args:
        folder: it need not exist.
        but_for_litter: whether what a killed process left half-written is no reason.

    Raises:
        RunError: a file, or a folder with something in it.
    """
    if folder.is_file():
        raise RunError(f"run_dir={folder}: is a file; give the name of a new folder")
    for child in _children(folder):
        if child.name != LOCK_FILE and not (but_for_litter and TEMPORARY.fullmatch(child.name)):
            raise RunError(
                f"run_dir={folder}: not empty; give a new folder, or go on with that run: "
                f"--resume {shlex.quote(str(folder))}"
            )


def complete(path: Path, steps: int, seconds: float | None) -> RunError:
    """That a run has nothing left to do, and what would change that. The file of a run limited by steps alone does not
    say its seconds."""
    taken = "" if seconds is None else f" and {seconds:.0f} s"
    return RunError(
        f"resume={path}: that run is complete after {steps} steps{taken}; "
        "give it more: --trainer.max_steps or --trainer.max_minutes"
    )


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def png_bytes(picture: "np.ndarray") -> bytes:
    """A uint8 picture (H, W) or (H, W, 3) as the content of a PNG file."""
    import imageio.v3 as iio

    buffer = io.BytesIO()
    iio.imwrite(buffer, picture, extension=".png")
    return buffer.getvalue()


def latest_run(root: str | Path) -> Path:
    """The newest folder under `root` that holds a volume.

    Raises:
        RunError: there is none.
    """
    root = Path(root)
    volumes = list(root.glob(f"*/{VOLUME_FILE}")) if root.is_dir() else []
    if not volumes:
        raise RunError(f"{root}: holds no finished run; sculpt one first: {to_type('train')}")
    latest = time.time() + CLOCK_ERROR

    def age(path: Path) -> tuple[bool, float]:
        written = path.stat().st_mtime
        return written <= latest, written

    return max(volumes, key=age).parent
