"""The scorecard that `mnist3d score` left in a run, as a table for the page.

Read as what somebody else wrote: up to a size, and only numbers where numbers belong.
"""

import itertools
import json
from pathlib import Path
from typing import Any

from ..evaluation.scores import FORMAT
from ..invocation import program_name
from ..storage.plain_files import read_plain
from ..viewer.curves import LONGEST_NAME, plain

SCORECARD_FILE = "scorecard.json"
MAX_BYTES = 2**20  # ours has some 5 KB, and a line for each of a thousand classes in it 200
MAX_COLUMNS = 4  # pose distributions on the page; ours are two or three
ROWS = {  # of a score: what they are called, and how they are written
    "legible": ("legible views", "{:.3f}"),
    "clean": ("clean views", "{:.3f}"),
    "effective_classes": ("effective classes", "{:.2f}"),
    "rarest_share": ("rarest class", "{:.3f}"),
    "frechet_distance": ("Frechet distance", "{:.2f}"),
    "kernel_distance": ("kernel distance", "{:.4f}"),
    "precision": ("precision", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
    "nearest_distance": ("to nearest training image", "{:.3f}"),
}


def scorecard_of(folder: Path) -> dict[str, Any] | None:
    """The names of the columns, the rows, each a title and a text a column, and a note; None where there is none.

    Args:
        folder: of the run. What is damaged there is a note, never an error.
    """
    try:
        card = json.loads(read_plain(folder / SCORECARD_FILE, MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        return _only(f"cannot be read ({error.strerror})")
    except (ValueError, RecursionError):
        return _only(f"is damaged; {program_name('score')} writes it anew")
    poses, real = (card.get("poses"), card.get("real")) if isinstance(card, dict) else (None, None)
    if not isinstance(poses, dict) or not isinstance(real, dict) or card.get("format") != FORMAT:
        return _only(f"is of another version, or damaged; {program_name('score')} writes it anew")
    scores = {str(name)[:LONGEST_NAME]: score for name, score in itertools.islice(poses.items(), MAX_COLUMNS)}
    scores["real images"] = real
    rows = []
    for key, (title, form) in ROWS.items():
        found = [plain(score.get(key)) if isinstance(score, dict) else None for score in scores.values()]
        if any(value is not None for value in found):
            rows.append([title, *(None if value is None else form.format(value) for value in found)])
    note = card.get("note")
    return {
        "columns": [name.replace("_", " ") for name in scores],
        "rows": rows,
        "note": note[:200] if isinstance(note, str) else "",
    }


def _only(trouble: str) -> dict[str, Any]:
    return {"columns": [], "rows": [], "note": f"{SCORECARD_FILE} {trouble}"}
