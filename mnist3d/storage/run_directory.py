"""Everything a run leaves on disk, each file whole or not there at all.

Names, places and atomic writes. Callers hand it bytes, text, dictionaries and pictures.
"""

import io
import json
import shlex
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ..errors import RunError, WriteError
from ..invocation import to_type
from .atomic import write_atomically

VOLUME_FILE = "volume.safetensors"
RESUME_FILE = "resume.pt"
CONFIG_FILE = "config.yaml"
STATS_FILE = "stats.jsonl"
LOCK_FILE = ".lock"


class RunDirectory:
    """A folder `runs/<time>-<preset>/` and the names of what lies in it.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock: FileLock | None = None

    @classmethod
    def create(cls, path: str | Path | None, root: str | Path, preset: str) -> "RunDirectory":
        """A new folder, taken for this process.

        Args:
            path: where; None for `root/<time>-<preset>`.
            root: parent of the folders that are named by time.
            preset: short name of what is run.

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
            try:
                folder.mkdir(parents=True, exist_ok=path is not None)
            except FileExistsError:
                if folder.is_dir():
                    continue  # another run began in the same second
                raise RunError(f"run_dir={folder}: is a file; give the name of a new folder") from None
            except OSError as error:
                raise WriteError(f"run_dir={folder}: cannot be made ({error.strerror})") from None
            run = cls(folder)
            if any(child.name != LOCK_FILE for child in folder.iterdir()):
                raise RunError(
                    f"run_dir={folder}: not empty; give a new folder, or go on with that run: "
                    f"--resume {shlex.quote(str(folder))}"
                )
            run.take()
            return run
        raise RunError(f"run_dir: no free name under {root}")

    def take(self) -> None:
        """Keep other processes out until `release`, or until this process ends.

        Raises:
            RunError: another process writes here.
            WriteError: the folder cannot be written.
        """
        lock = FileLock(self.path / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"run_dir={self.path}: in use by another process; wait, or give another folder") from None
        except OSError as error:
            raise WriteError(f"run_dir={self.path}: cannot be written ({error.strerror})") from None
        self._lock = lock

    def release(self) -> None:
        """Let others write here."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

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
        """
        return write_atomically(self.path / name, content.encode() if isinstance(content, str) else content)

    def write_json(self, name: str, value: Any) -> Path:
        """`write` of indented JSON."""
        return self.write(name, json.dumps(value, indent=2) + "\n")

    def write_picture(self, name: str, picture: np.ndarray) -> Path:
        """`write` of a uint8 picture (H, W) or (H, W, 3) under `pictures/`, as PNG."""
        return self.write(f"pictures/{name}", png_bytes(picture))

    def append_stats(self, record: dict[str, Any]) -> None:
        """One line of `stats.jsonl`.

        Raises:
            WriteError: the disk is full, or the folder cannot be written.
        """
        try:
            with open(self.path / STATS_FILE, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise WriteError(f"{self.path / STATS_FILE}: cannot be written ({error.strerror})") from None

    def read_stats(self) -> list[dict[str, Any]]:
        """The lines of `stats.jsonl`; what is no JSON object, such as a last line that a crash cut off, is left out."""
        path = self.path / STATS_FILE
        if not path.is_file():
            return []
        records = []
        for line in path.read_bytes().split(b"\n"):
            try:
                record = json.loads(line.decode())
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                records.append(record)
        return records

    def cut_stats(self, last_step: int) -> None:
        """Drop the lines after a step, which a resumed run will write again."""
        kept = [record for record in self.read_stats() if record.get("step", 0) <= last_step]
        if (self.path / STATS_FILE).is_file():
            self.write(STATS_FILE, "".join(json.dumps(record) + "\n" for record in kept))


def png_bytes(picture: np.ndarray) -> bytes:
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
    return max(volumes, key=lambda path: path.stat().st_mtime).parent
