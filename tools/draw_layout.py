"""Draws docs/layout.svg, the folders of mnist3d and who imports whom, from the imports in the sources.

    python tools/draw_layout.py            draw it
    python tools/draw_layout.py --check    exit code 1 if the file is not what the imports say

Layered drawing after Sugiyama (1981): rows by the longest way from the top, places in a row by the mean of
what they are joined to, long arrows led through the gaps of the rows between. Nothing in it is placed by hand. It
checks nothing; `tests/test_imports.py` does.
"""

import argparse
import ast
import sys
import textwrap
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from pathlib import Path

from read_imports import circle, folder, imports, modules

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docs" / "layout.svg"
WIDTH, GAP, LANE = 218.0, 34.0, 20.0  # pixels: of a box, between boxes, of a long arrow on its way
LETTERS = 33  # of a sentence in one line of a box
LINE, HEAD, ROW_GAP, MARGIN = 15.0, 34.0, 46.0, 18.0
SWEEPS = 24  # up and down; the order settles within ten
STRAIGHT = 3  # how much stronger a long arrow pulls on its way than a short one
ARROW = 7.0
# Colours that can be read on white and on black.
TOP, BOTTOM, INK, GREY = (38, 66, 110), (22, 104, 96), "#ffffff", "#7d8894"
FEW, SOME = 2, 7  # imports up to which an arrow is thin, and middling
WIDTHS = (1.4, 2.8, 4.6)
FONT = "font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\""


@dataclass
class Box:
    """A folder, or a place that a long arrow goes through, which has no text.

    Args:
        name: of the folder; empty for a place on the way.
        row: from the top, 0 is the first.
        lines: of text under the name.
        count: modules in it and in the folders below it, each `__init__` aside.
        x: its centre, pixels.
    """

    name: str
    row: int
    lines: list[str] = field(default_factory=list)
    count: int = 0
    x: float = 0.0

    @property
    def width(self) -> float:
        """Pixels."""
        return WIDTH if self.name else LANE


@dataclass
class Arrow:
    """What one folder imports from another.

    Args:
        ends: who imports, and what.
        count: pairs of modules.
        way: the boxes from one end to the other; of a faint one the ends only.
        faint: whether other arrows lead there too.
    """

    ends: tuple[str, str]
    count: int
    way: list[Box]
    faint: bool


def main() -> int:
    """Draw, or check; the exit code."""
    parser = argparse.ArgumentParser(description="Draw docs/layout.svg from the imports of mnist3d.")
    parser.add_argument("--check", action="store_true", help="exit with 1 if the file is not what the imports say")
    options = parser.parse_args()
    drawn = drawing(ROOT / "mnist3d")
    if not options.check:
        FILE.write_text(drawn)
    elif not FILE.is_file() or FILE.read_text() != drawn:
        print("docs/layout.svg is not what the imports say: run python tools/draw_layout.py", file=sys.stderr)
        return 1
    return 0


def drawing(package: Path) -> str:
    """The drawing as SVG.

    Raises:
        SystemExit: folders import each other in a circle, so that there is no top and no bottom.
    """
    pairs = {(entry.importer, entry.imported) for entry in imports(package)}
    counts: dict[tuple[str, str], int] = {}
    for pair in pairs:
        ends = folder(pair[0]), folder(pair[1])
        if ends[0] != ends[1]:
            counts[ends] = counts.get(ends, 0) + 1
    if found := circle(set(counts)):
        raise SystemExit(f"no drawing: {' imports '.join(found)}")
    known = modules(package)
    files = [name for name in known if "." not in name and known[name].name != "__init__.py"]
    between = {ends: count for ends, count in counts.items() if not {*ends} & {*files}}
    boxes = _boxes(known, sorted({*map(folder, known)} - {*files}), set(between))
    rows = [[box for box in boxes.values() if box.row == row] for row in range(_last(boxes) + 1)]
    arrows = [_arrow(ends, count, boxes, rows, set(between)) for ends, count in sorted(between.items())]
    _place(rows, [arrow.way for arrow in arrows if not arrow.faint])
    return _svg(rows, arrows, {name: sum(ends[1] == name for ends in counts) for name in files})


def _boxes(known: dict[str, Path], folders: list[str], edges: set[tuple[str, str]]) -> dict[str, Box]:
    boxes = {}
    for name in folders:
        sentence = (ast.get_docstring(ast.parse(known[name].read_text())) or "").partition("\n")[0]
        lines = textwrap.wrap(sentence.replace("`", ""), LETTERS)
        count = sum(folder(module) == name and known[module].name != "__init__.py" for module in known)
        boxes[name] = Box(name, _row(name, edges), lines, count)
    return boxes


def _row(name: str, edges: set[tuple[str, str]]) -> int:
    return max((_row(above, edges) + 1 for above, below in edges if below == name), default=0)


def _last(boxes: dict[str, Box]) -> int:
    return max(box.row for box in boxes.values())


def _leads(start: str, end: str, edges: set[tuple[str, str]]) -> bool:
    return any(below == end or _leads(below, end, edges) for above, below in edges if above == start)


def _arrow(
    ends: tuple[str, str], count: int, boxes: dict[str, Box], rows: list[list[Box]], edges: set[tuple[str, str]]
) -> Arrow:
    """An arrow; a strong one gets a place in every row that it passes."""
    start, end = boxes[ends[0]], boxes[ends[1]]
    faint = _leads(ends[0], ends[1], edges - {ends})
    lanes = [] if faint else [Box("", row) for row in range(start.row + 1, end.row)]
    for lane in lanes:
        rows[lane.row].append(lane)
    return Arrow(ends, count, [start, *lanes, end], faint)


def _place(rows: list[list[Box]], ways: list[list[Box]]) -> None:
    """Order the boxes of each row, then move them as near as they can get to what they are joined to."""
    above: dict[int, list[Box]] = {id(box): [] for row in rows for box in row}
    below: dict[int, list[Box]] = {id(box): [] for row in rows for box in row}
    for way in ways:
        for upper, lower in pairwise(way):
            pull = 1 if upper.name and lower.name else STRAIGHT
            above[id(lower)] += pull * [upper]
            below[id(upper)] += pull * [lower]
    for row in rows:
        _apart(row, [float(k) for k in range(len(row))])
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        for row in rows if downwards else rows[::-1]:
            joined = above if downwards else below
            wanted = {id(box): _mean(joined[id(box)], box.x) for box in row}
            row.sort(key=lambda box, wanted=wanted: wanted[id(box)])
            _apart(row, [wanted[id(box)] for box in row])
    for _ in range(SWEEPS):
        for row in rows:
            _apart(row, [_mean(above[id(box)] + below[id(box)], box.x) for box in row])
    left = min(box.x - box.width / 2 for row in rows for box in row)
    for row in rows:
        for box in row:
            box.x += MARGIN - left


def _mean(boxes: list[Box], otherwise: float) -> float:
    return sum(box.x for box in boxes) / len(boxes) if boxes else otherwise


def _apart(row: list[Box], wanted: list[float]) -> None:
    """Nearest to the wanted places (least squares) without overlaps: pool adjacent violators."""
    offsets = [0.0]
    for one, other in pairwise(row):
        offsets.append(offsets[-1] + (one.width + other.width) / 2 + GAP)
    pools: list[list[float]] = []
    for place, offset in zip(wanted, offsets, strict=True):
        pools.append([place - offset])
        while len(pools) > 1 and sum(pools[-2]) / len(pools[-2]) >= sum(pools[-1]) / len(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    free = [sum(pool) / len(pool) for pool in pools for _ in pool]
    for box, place, offset in zip(row, free, offsets, strict=True):
        box.x = place + offset


def _svg(rows: list[list[Box]], arrows: list[Arrow], files: dict[str, int]) -> str:
    heights = [HEAD + LINE * max(len(box.lines) for box in row) for row in rows]
    tops = [MARGIN + sum(heights[:k]) + ROW_GAP * k for k in range(len(rows))]
    width = MARGIN + max(box.x + box.width / 2 for row in rows for box in row)
    foot = tops[-1] + heights[-1]
    parts = [_lines(arrow, arrows, tops, heights) for arrow in sorted(arrows, key=lambda arrow: not arrow.faint)]
    for row, top in zip(rows, tops, strict=True):
        parts += [_text_box(box, top, len(rows)) for box in row if box.name]
    said = "; ".join(f"{name}.py is imported by {count} folders" for name, count in files.items())
    notes = [said, "thicker: more imports; faint: an import where stronger arrows lead too"]
    for k, note in enumerate(notes):
        parts.append(
            f'<text x="{MARGIN:.0f}" y="{foot + 30 + 18 * k:.0f}" {FONT} font-size="12" fill="{GREY}">{note}</text>'
        )
    size = f'width="{width:.0f}" height="{foot + 66:.0f}" viewBox="0 0 {width:.0f} {foot + 66:.0f}"'
    title = "<title>The folders of mnist3d, from the top down, and what imports what</title>"
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', title, *parts, "</svg>", ""])


def _text_box(box: Box, top: float, rows: int) -> str:
    share = box.row / max(1, rows - 1)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(TOP, BOTTOM, strict=True))
    left, height = box.x - WIDTH / 2, HEAD + LINE * len(box.lines)
    counted = f"{box.count} module{'s' * (box.count > 1)}" if box.count else ""
    lines = [
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{WIDTH:.0f}" height="{height:.1f}" rx="7" '
        f'fill="#{red:02x}{green:02x}{blue:02x}"/>',
        f'<text x="{left + 12:.1f}" y="{top + 22:.1f}" {FONT} font-size="15" font-weight="600" fill="{INK}">'
        f"{escape(box.name)}</text>",
        f'<text x="{left + WIDTH - 12:.1f}" y="{top + 22:.1f}" {FONT} font-size="11" fill="{INK}" '
        f'fill-opacity="0.75" text-anchor="end">{counted}</text>',
    ]
    for k, line in enumerate(box.lines):
        lines.append(
            f'<text x="{left + 12:.1f}" y="{top + 40 + LINE * k:.1f}" {FONT} font-size="12" fill="{INK}">'
            f"{escape(line)}</text>"
        )
    return "\n".join(lines)


def _lines(arrow: Arrow, arrows: list[Arrow], tops: list[float], heights: list[float]) -> str:
    """A curve that leaves downwards and arrives downwards, straight where it passes a row."""
    start, *lanes, end = arrow.way
    x, y = _port(arrow, arrows, 0), tops[start.row] + HEAD + LINE * len(start.lines)
    path = f"M{x:.1f} {y:.1f}"
    tip = tops[end.row] - (0.0 if arrow.faint else ARROW)
    stops = [(lane.x, tops[lane.row], tops[lane.row] + heights[lane.row]) for lane in lanes]
    stops.append((_port(arrow, arrows, -1), tip, tip))
    for next_x, next_y, leave in stops:
        bend = (next_y - y) / 2
        path += f" C{x:.1f} {y + bend:.1f} {next_x:.1f} {next_y - bend:.1f} {next_x:.1f} {next_y:.1f}"
        path += f" V{leave:.1f}" if leave > next_y else ""
        x, y = next_x, leave
    thick = WIDTHS[(arrow.count > FEW) + (arrow.count > SOME)]
    if arrow.faint:
        return f'<path d="{path}" fill="none" stroke="{GREY}" stroke-width="1" stroke-opacity="0.25"/>'
    half = ARROW * 0.5 + thick / 2
    head = f"M{x - half:.1f} {y:.1f} h{2 * half:.1f} L{x:.1f} {y + ARROW:.1f} z"
    return f'<path d="{path}" fill="none" stroke="{GREY}" stroke-width="{thick}"/>\n<path d="{head}" fill="{GREY}"/>'


def _port(arrow: Arrow, arrows: list[Arrow], end: int) -> float:
    """Where on its box an arrow ends: side by side with the others there, in the order of where they go."""
    box, step = arrow.way[end], 1 if end == 0 else -2
    there = [other for other in arrows if other.way[end] is box and not other.faint]
    if arrow.faint:
        return box.x
    there.sort(key=lambda other: other.way[step].x)
    return box.x + (there.index(arrow) - (len(there) - 1) / 2) * min(26.0, (WIDTH - 40.0) / len(there))


if __name__ == "__main__":
    sys.exit(main())
