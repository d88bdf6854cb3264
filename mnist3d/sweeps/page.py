"""The page of a sweep: a table and all view atlases side by side, the best first, in one file that loads nothing."""

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from ..errors import one_line
from ..storage.plain_files import read_plain
from .folder import Record, SweepFolder
from .plan import as_text

MAX_MAP = 2**22  # bytes
STYLE = """
body { background: #12141a; color: #e2e4ea; font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 130rem;
  padding: 0 1.5rem }
h1 { font-size: 1.5rem; font-weight: 600 } h2 { font-size: 1rem; margin: 0 }
p { color: #8c92a0; margin: .25rem 0 } a { color: #46dcdc }
main { display: grid; gap: 1.5rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 44rem), 1fr)) }
article { background: #1a1d25; border-radius: 8px; padding: 1rem } article.best { outline: 2px solid #46dcdc }
img { display: block; width: 100% } .score { color: #fadc3c } .failed { color: #e64655 }
"""


def page_of(folder: SweepFolder, records: Sequence[Record], title: str, best: Record | None) -> str:
    """The HTML.

    Args:
        folder: where the maps lie.
        records: of all runs.
        title: at its top.
        best: the run to mark, or None.
    """
    ordered = sorted(records, key=lambda each: (-len(each.standing.scores), -_number(each.score), each.name))
    cards = "\n".join(_card(record, folder.map(record.name), record is best) for record in ordered)
    name = html.escape(one_line(title))
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{name}</title>\n<style>{STYLE}</style>\n'
        f"<h1>{name}</h1>\n<p>{len(records)} runs, the best first. Left: the view from each direction; right: which "
        f"class the classifiers for selection read there.</p>\n<main>\n{cards}\n</main>\n</html>\n"
    )


def _card(record: Record, path: Path, best: bool) -> str:
    settings = ", ".join(f"{key} {as_text(value)}" for key, value in record.planned.settings.items())
    score = "" if record.score is None else f' <span class="score">{record.score:.3f}</span>'
    facts = f"{record.standing.state}, {record.step:,} steps, {record.seconds / 60:.1f} minutes"
    error = f'<p class="failed">{html.escape(record.error)}</p>' if record.error else ""
    name = html.escape(record.name)
    kind = ' class="best"' if best else ""
    return (
        f"<article{kind}><h2>{name}{score}</h2><p>{html.escape(settings)}</p><p>{facts}</p>{error}"
        f"{_image(path, name)}</article>"
    )


def _image(path: Path, name: str) -> str:
    try:
        content = base64.b64encode(read_plain(path, MAX_MAP)).decode()
    except OSError:  # not drawn yet
        return ""
    return f'<img alt="view atlas of {name}" src="data:image/jpeg;base64,{content}">'


def _number(score: float | None) -> float:
    return -1.0 if score is None else score
