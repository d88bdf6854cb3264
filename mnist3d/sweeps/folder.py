"""The folder of a sweep: which files lie there, how each run stands, and how that is read again after a crash.

sweep.yaml   what is swept        table.csv   a row a run       page.html   all runs side by side
runs/NAME/   a run directory      maps/       view atlases      logs/       what each run said
configs/     of each run          state.json  what a sweep that goes on must know
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from filelock import FileLock, Timeout

from ..errors import RunError, VolumeFileError, WriteError, one_line
from ..storage.atomic import TEMPORARY, whole_files, write_atomically
from ..storage.last_two import previous
from ..storage.own_files import check_own
from ..storage.plain_files import open_plain, read_plain
from ..storage.run_directory import STATS_FILE, VOLUME_FILE
from ..volumes.files import read_description
from .halving import Standing, State
from .plan import Planned, as_text

SPEC_FILE, TABLE_FILE, PAGE_FILE, STATE_FILE, LOCK_FILE = "sweep.yaml", "table.csv", "page.html", "state.json", ".lock"
FOLDERS = ("runs", "configs", "logs", "maps")
FORMAT = 1  # of state.json
MAX_STATE, MAX_STEP = 2**26, 2**53  # bytes; steps
TAIL = 4096  # bytes of stats.jsonl that are looked at: more than a line of it


@dataclass
class Record:
    """A run of a sweep and what has become of it.

    Args:
        planned: name and settings.
        standing: state, and the score at each rung.
        step: of what is saved.
        seconds: of all its sessions.
        error: the last line of one that failed.
        progress: of the session under way, [0, 1].
        lost: sessions that ended through no fault of the run, since it last came further.
    """

    planned: Planned
    standing: Standing = field(default_factory=Standing)
    step: int = 0
    seconds: float = 0.0
    error: str = ""
    progress: float = 0.0
    lost: int = 0

    @property
    def name(self) -> str:
        """Of its folder."""
        return self.planned.name

    @property
    def score(self) -> float | None:
        """The latest; None where there is none."""
        return self.standing.scores[-1] if self.standing.scores else None


class SweepFolder:
    """A folder that holds a sweep; taken for this process until `release`.

    Args:
        path: the folder; made where it is missing.
        folders: that it has.

    Raises:
        RunError: another process sweeps there, or something in it is a link.
        WriteError: it cannot be made or written.
    """

    def __init__(self, path: Path, folders: Sequence[str] = FOLDERS) -> None:
        self.path = path.absolute()
        inside = [self.path / name for name in (LOCK_FILE, *folders)]
        self._made = [each for each in (*inside, self.path, *self.path.parents) if not each.exists()]
        try:
            for name in folders:
                check_own(self.path / name, "folder")
                (self.path / name).mkdir(parents=True, exist_ok=True)
            check_own(self.path / LOCK_FILE, "file")
            self._lock = FileLock(self.path / LOCK_FILE)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"output={path}: another process sweeps there; wait, or give another folder") from None
        except NotImplementedError:
            raise WriteError(f"output={path}: its disk knows no locks; choose a folder on another disk") from None
        except OSError as error:
            raise WriteError(f"output={path}: cannot be made ({error.strerror})") from None

    def release(self, first: str = SPEC_FILE) -> None:
        """Let others sweep here; where nothing has begun, what was made for it goes again.

        Args:
            first: name of the file that is written first.
        """
        if is_unused(self.path, first):
            with suppress(OSError):  # others have put something there, or, on Windows, the lock is still open
                for made in self._made:
                    made.unlink() if made.name == LOCK_FILE else made.rmdir()
        self._lock.release()

    @property
    def shown(self) -> Path:
        """The folder as a person in the current one would type it."""
        here = Path.cwd()
        return self.path.relative_to(here) if self.path.is_relative_to(here) else self.path

    def run(self, name: str) -> Path:
        """The run directory of a run."""
        return self.path / "runs" / name

    def config(self, name: str) -> Path:
        """Its complete configuration."""
        return self.path / "configs" / f"{name}.yaml"

    def log(self, name: str) -> Path:
        """What it has said."""
        return self.path / "logs" / f"{name}.txt"

    def map(self, name: str) -> Path:
        """Its view atlas."""
        return self.path / "maps" / f"{name}.jpg"

    def write(self, name: str, content: str) -> None:
        """A file, whole or not at all.

        Raises:
            WriteError: the disk is full, or the folder cannot be written.
        """
        self.write_bytes(name, content.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Likewise."""
        write_atomically(self.path / name, content)

    def write_configs(self, contents: Mapping[str, str]) -> None:
        """The configurations of runs, by their names; of all at once, as a folder of many is slow to write to."""
        if contents:
            with whole_files(self.config(next(iter(contents)))) as place:
                for name, content in contents.items():
                    (place / self.config(name).name).write_bytes(content.encode())

    def write_map(self, name: str, content: bytes) -> None:
        """The view atlas of a run."""
        write_atomically(self.map(name), content)

    def save(self, records: list[Record], seconds: float) -> None:
        """`state.json` and `table.csv`.

        Args:
            records: all, in the order of the plan.
            seconds: that the sweep has taken, all its sessions together.
        """
        runs = {
            record.name: {
                "state": record.standing.state,
                "scores": record.standing.scores,
                "step": record.step,
                "seconds": round(record.seconds, 2),
                "error": record.error,
            }
            for record in records
        }
        self.write(STATE_FILE, json.dumps({"format": FORMAT, "seconds": round(seconds, 2), "runs": runs}, indent=1))
        self.write(TABLE_FILE, table(records))

    def restore(self, records: list[Record]) -> float:
        """Let records stand where `state.json` says, as far as it can be read; the seconds that the sweep has taken.

        What ran when the sweep ended waits for its turn again, and so does what failed.
        """
        try:
            saved = json.loads(read_plain(self.path / STATE_FILE, MAX_STATE))
            assert saved["format"] == FORMAT
            runs, seconds = dict(saved["runs"]), _number(saved["seconds"])
        except (OSError, ValueError, TypeError, KeyError, AssertionError, RecursionError):
            runs, seconds = {}, 0.0  # every run is looked for where it lies
        for record in records:
            found = runs.get(record.name)
            if isinstance(found, dict):
                _restore(record, found)
        return seconds


def _restore(record: Record, found: dict[str, Any]) -> None:
    states: dict[Any, State] = {state: state for state in get_args(State)}
    state, scores = found.get("state"), found.get("scores")
    if state not in states or not isinstance(scores, list):
        return
    record.standing.scores = [None if each is None else _number(each) for each in scores]
    record.standing.state = "waiting" if state in ("running", "failed") else states[state]
    record.seconds, record.step = _number(found.get("seconds")), int(_number(found.get("step")))
    record.error = one_line(str(found.get("error", ""))) if state != "failed" else ""


def _number(value: Any) -> float:
    return float(value) if type(value) in (int, float) and math.isfinite(value) and abs(value) < MAX_STEP else 0.0


def table(records: list[Record]) -> str:
    """The rows of `table.csv`."""
    keys = list(dict.fromkeys(key for record in records for key in record.planned.settings))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *keys, "state", "step", "score", "seconds", "path", "error"])
    for record in records:
        settings = [as_text(record.planned.settings[key]) if key in record.planned.settings else "" for key in keys]
        score = "" if record.score is None else f"{record.score:.4f}"
        path = f"runs/{record.name}" if record.step else ""
        state = [record.standing.state, record.step, score, f"{record.seconds:.1f}", path, record.error]
        writer.writerow([record.name, *settings, *state])
    return text.getvalue()


def is_unused(path: Path, first: str = SPEC_FILE) -> bool:
    """Whether a sweep can begin in a folder: there is none, or no more than one that could not write its first file.

    Args:
        path: the folder.
        first: name of that file.
    """
    try:
        return not path.exists() or all(_is_of_the_start(child, first) for child in path.iterdir())
    except OSError:  # a file, or a folder that cannot be read
        return False


def _is_of_the_start(child: Path, first: str) -> bool:
    if child.name in FOLDERS:
        return child.is_dir() and not any(child.iterdir())
    begun = TEMPORARY.fullmatch(child.name)
    return child.name == LOCK_FILE or (begun is not None and begun["name"] == first)


def has_file(run: Path, name: str) -> bool:
    """Whether a run directory holds a file, or the version before it."""
    return (run / name).is_file() or (run / previous(Path(name))).is_file()


def saved_step(run: Path) -> tuple[int, bool]:
    """The step of what a run has saved, and whether it is complete; (0, False) where it has saved nothing."""
    try:
        found = read_description(run / VOLUME_FILE)
    except VolumeFileError:
        return 0, False
    step = found.get("step")
    return (step if isinstance(step, int) and 0 <= step < MAX_STEP else 0), found.get("complete") is True


def last_progress(run: Path) -> float:
    """How far a run is that goes on, [0, 1], as its `stats.jsonl` says; 0 where it does not."""
    try:
        with open_plain(run / STATS_FILE) as file:
            file.seek(max(0, file.seek(0, io.SEEK_END) - TAIL))
            lines = file.read(TAIL).splitlines()
    except OSError:
        return 0.0
    for line in reversed(lines):
        try:
            progress = json.loads(line)["progress"]
            return min(max(_number(progress), 0.0), 1.0)
        except (ValueError, TypeError, KeyError, RecursionError):
            continue  # cut off at the beginning, or a line of another kind
    return 0.0
