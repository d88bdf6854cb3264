"""The lines of a run's `stats.jsonl`: one JSON object each, with its step; whatever else a file holds is left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import RunError
from .plain_files import open_plain, size_in_words

MAX_FILE, MAX_LINE = 2**28, 2**20  # bytes
PARSED = 2**25  # bytes that are parsed of a larger file: every second line, every third, ...
MAX_STEP = 2**53


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records, in order; of a large file evenly some of them. None where there is no file.

    A line that is no JSON object with a whole number as its step, such as a last one that a crash cut off, is left out.

    Raises:
        RunError: the file cannot be read, is no plain file, or holds more than `MAX_FILE`.
    """
    every = 1 + _size(path) // PARSED
    lines = (line for number, line in enumerate(_lines(path)) if number % every == 0)
    return [record for record in map(_record, lines) if record is not None]


def lines_until(path: Path, last_step: int) -> bytes:
    """The lines of the records up to a step, as they stand.

    Raises:
        RunError: as `read_records`.
    """
    kept = bytearray()
    for line in _lines(path):
        record = _record(line)
        if record is not None and record["step"] <= last_step:
            kept += line.rstrip(b"\n") + b"\n"
    return bytes(kept)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # said where it is opened
        return 0


def _lines(path: Path) -> Iterator[bytes]:
    """Lines of up to `MAX_LINE` bytes; longer ones are passed over piece by piece."""
    try:
        with open_plain(path) as file:
            left, whole = MAX_FILE, True
            while line := file.readline(MAX_LINE):
                left -= len(line)
                if left < 0:
                    raise RunError(f"{path}: holds more than {size_in_words(MAX_FILE)}; move it away or shorten it")
                ended = line.endswith(b"\n")
                if whole and (ended or len(line) < MAX_LINE):
                    yield line
                whole = ended
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    known = isinstance(record, dict) and type(record.get("step")) is int and 0 <= record["step"] <= MAX_STEP
    return record if known else None
