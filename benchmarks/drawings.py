"""Drawings to learn from: wobbly houses, fish and trees, or a font's letters, dark on white, as a newcomer brings them.

    python benchmarks/drawings.py FOLDER [--letters] [--count 100] [--seed 0]

writes JPEG files of mixed sizes, `--count` of each class, a subfolder a class. docs/results.md and research/log.md have
the figures of runs on them.
"""

import argparse
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

LETTERS = "ABEFHKRSTX"
Line = list[tuple[float, float]]  # points in [-1, 1]^2, y down


def circle(x: float, y: float, width: float, height: float, start: float = 0.0, end: float = 360.0) -> Line:
    """An arc of an ellipse, degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 40))
    return [(x + width * math.cos(a), y + height * math.sin(a)) for a in angles]


def house(random: np.random.Generator) -> list[Line]:
    """Walls, a roof, a door, and mostly a window."""
    width, top, peak = random.uniform(0.45, 0.65), random.uniform(-0.2, 0.1), random.uniform(-0.85, -0.65)
    door, side = random.uniform(0.12, 0.2), random.choice([-1.0, 1.0])
    lines = [
        [(-width, top), (-width, 0.75), (width, 0.75), (width, top), (-width, top)],
        [(-width - 0.12, top), (0.0, peak), (width + 0.12, top)],
        [
            (side * 0.25 - door, 0.75),
            (side * 0.25 - door, 0.35),
            (side * 0.25 + door, 0.35),
            (side * 0.25 + door, 0.75),
        ],
    ]
    if random.random() < 0.8:
        x, y = -side * 0.28, top + 0.25
        lines.append(
            [(x - 0.13, y - 0.1), (x + 0.13, y - 0.1), (x + 0.13, y + 0.12), (x - 0.13, y + 0.12), (x - 0.13, y - 0.1)]
        )
    return lines


def fish(random: np.random.Generator) -> list[Line]:
    """A body, a tail, an eye, and mostly a gill; it looks either way."""
    height, side = random.uniform(0.3, 0.45), random.choice([-1.0, 1.0])
    lines = [
        circle(-0.15, 0.0, 0.6, height),
        [(0.42, -0.08), (0.85, -0.4), (0.78, 0.0), (0.85, 0.4), (0.42, 0.08)],
        circle(-0.48, -0.1, 0.06, 0.06),
    ]
    if random.random() < 0.7:
        lines.append(circle(-0.42, 0.0, 0.2, height * 0.8, -70.0, 70.0))
    return [[(side * x, y) for x, y in line] for line in lines]


def tree(random: np.random.Generator) -> list[Line]:
    """A trunk and a crown of a few bumps."""
    width, bumps = random.uniform(0.08, 0.14), int(random.integers(5, 9))
    crown = [
        (
            0.55 * (1 + 0.12 * math.sin(bumps * a)) * math.cos(a),
            -0.25 + 0.5 * (1 + 0.12 * math.sin(bumps * a)) * math.sin(a),
        )
        for a in np.linspace(0, 2 * math.pi, 80)
    ]
    return [crown, [(-width, 0.2), (-width, 0.85)], [(width, 0.2), (width, 0.85)], [(-0.35, 0.85), (0.35, 0.85)]]


def wobbly(line: Line, random: np.random.Generator) -> Line:
    """The line as a hand draws it: in short pieces, each a little beside where it should be."""
    points: Line = []
    for (x0, y0), (x1, y1) in pairwise(line):
        pieces = max(1, round(math.hypot(x1 - x0, y1 - y0) / 0.12))
        points += [(x0 + (x1 - x0) * k / pieces, y0 + (y1 - y0) * k / pieces) for k in range(pieces)]
    points.append(line[-1])
    offsets = random.normal(0.0, 0.02, (len(points), 2))
    smooth = (offsets + np.roll(offsets, 1, 0) + np.roll(offsets, 2, 0)) / 1.7
    return [(x + dx, y + dy) for (x, y), (dx, dy) in zip(points, smooth, strict=True)]


def drawing(lines: list[Line], random: np.random.Generator) -> Image.Image:
    """Pen strokes on white paper, somewhat turned and moved, on a sheet of some size."""
    width, height = (int(random.integers(180, 420)) for _ in range(2))
    size = min(width, height) * random.uniform(0.4, 0.47)
    angle = math.radians(random.normal(0.0, 4.0))
    centre = width / 2 + random.normal(0.0, 0.02) * size, height / 2 + random.normal(0.0, 0.02) * size
    sheet = Image.new("L", (4 * width, 4 * height), int(random.integers(245, 256)))
    pen, ink = ImageDraw.Draw(sheet), int(random.integers(0, 50))
    thickness = 4 * size * random.uniform(0.05, 0.09)
    for line in lines:
        turned = [
            (x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)) for x, y in line
        ]
        points = [(4 * (centre[0] + size * x), 4 * (centre[1] + size * y)) for x, y in wobbly(turned, random)]
        pen.line(points, fill=ink, width=round(thickness), joint="curve")
        for x, y in (points[0], points[-1]):
            pen.circle((x, y), thickness / 2, fill=ink)
    return sheet.resize((width, height), Image.Resampling.LANCZOS)


def letter(text: str, random: np.random.Generator) -> Image.Image:
    """A letter in the font that Pillow contains, somewhat turned, dark on white, on a sheet of some size."""
    width, height = (int(random.integers(100, 300)) for _ in range(2))
    font = ImageFont.load_default(min(width, height) * random.uniform(0.75, 0.95))
    sheet = Image.new("L", (width, height), 255)
    ImageDraw.Draw(sheet).text((width / 2, height / 2), text, fill=int(random.integers(0, 50)), font=font, anchor="mm")
    return sheet.rotate(random.normal(0.0, 5.0), Image.Resampling.BICUBIC, fillcolor=255)


def write_drawings(folder: Path, count: int, seed: int, letters: bool) -> None:
    """`count` JPEG files of each class."""
    random = np.random.default_rng(seed)
    kinds: dict[str, Callable[[], Image.Image]] = {
        kind.__name__: lambda kind=kind: drawing(kind(random), random) for kind in (house, fish, tree)
    }
    if letters:
        kinds = {text: lambda text=text: letter(text, random) for text in LETTERS}
    for name, draw in kinds.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            draw().save(folder / name / f"{number:03d}.jpg", quality=88)


def main() -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the subfolders go")
    parser.add_argument("--letters", action="store_true", help=f"the letters {LETTERS} in place of drawings")
    parser.add_argument("--count", type=int, default=100, help="images of each class (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default %(default)s)")
    arguments = parser.parse_args()
    write_drawings(arguments.folder, arguments.count, arguments.seed, arguments.letters)


if __name__ == "__main__":
    main()
