"""The figure of a comparison: each variant once around its axis, and the learning curves of all below it."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from ..errors import ExportError
from ..evaluation.turns import Turn, turns_strip
from ..evaluation.view_atlas import BACKGROUND, PALETTE, class_colour
from ..export.learning_curves import Curve, Panel, learning_curves
from ..runs.config import Config
from ..storage.labels import printable
from .measuring import HALF, Measured, Measuring
from .table import Row

HEIGHT = 360  # pixels, of the curves
MOST_ROWS = 40  # that are drawn: more are no figure
LOWEST_TOP = 0.6  # of the axis of the legible share, so that the goal is in sight
ORDER = (0, 5, 2, 6, 8, 3, 1, 7, 9, 4)  # of `PALETTE`, so that the first ones are far apart


def figure_of(
    rows: Sequence[Row], folder: Path, configs: Mapping[str, Config], measuring: Measuring, by_steps: bool
) -> tuple[bytes, str]:
    """A PNG, and what is missing in it, in words; empty bytes where no run is complete.

    Args:
        rows: of the table.
        folder: of the run directories, each under the name of its run.
        configs: of each run.
        measuring: reads the views.
        by_steps: whether the runs have equal steps, and not equal time.
    """
    shown = [(row, middle) for row in rows if (middle := row.middle) is not None][:MOST_ROWS]
    if not shown:
        return b"", "no run is complete, so there is no figure"
    turns, names = [], []
    for place, (row, middle) in enumerate(shown):
        views, reading = measuring.turn(folder / middle.name, configs[middle.name])
        remarks = _remarks(row, middle)
        turns.append(Turn(printable(row.variant.label), remarks, colour_of(place), views, reading))
        names.append(measuring.class_names(configs[middle.name]))
    sheet, missing = turns_strip(turns, names), ""
    curves = [
        Curve(row.variant.label, colour_of(place), [points_of(run, by_steps) for run in row.done if run.curve])
        for place, (row, _) in enumerate(shown)
    ]
    if any(curve.runs for curve in curves):
        classes = max([len(each) for each in names if each] or [1])
        highest = max(run[:, 1].max() for curve in curves for run in curve.runs)
        top = min(1.0, max(LOWEST_TOP, math.ceil(10.0 * highest + 0.2) / 10.0))
        panels = [Panel("legible share of the views", top, HALF), Panel("effective classes", float(classes))]
        x_title = "steps" if by_steps else "minutes of training"
        try:
            drawn = learning_curves(curves, panels, x_title, sheet.shape[1], HEIGHT)
            gap = np.full((16, sheet.shape[1], 3), BACKGROUND, np.uint8)
            sheet = np.concatenate([sheet, gap, drawn])
        except ExportError as error:
            missing = f"without learning curves: {error}"
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "PNG")
    return content.getvalue(), missing


def colour_of(place: int) -> tuple[int, int, int]:
    """The colour of a row; after ten rows they repeat, darker."""
    return class_colour(ORDER[place % len(PALETTE)] + place // len(PALETTE) * len(PALETTE))


def points_of(run: Measured, by_steps: bool) -> Float[np.ndarray, "N 3"]:
    """Of a learning curve: minutes or steps, legible share, effective classes."""
    found = [
        (point["step"] if by_steps else point["seconds"] / 60.0, point["legible"], point["effective_classes"])
        for point in run.curve
    ]
    return np.array(found, dtype=np.float64).reshape(-1, 3)


def _remarks(row: Row, middle: Measured) -> list[str]:
    """What stands below the name: its preset, what its views are like, and which run is shown."""
    names = [row.variant.preset] if row.variant.preset != row.variant.label else []
    names += [f"seed {middle.seed}"] if len(row.runs) > 1 else []
    legible, classes = middle.scores.get("legible"), middle.scores.get("effective_classes")
    figures = f"{legible:.2f} legible, {classes:.1f} classes" if legible is not None and classes is not None else ""
    return [line for line in (", ".join(names), figures) if line]
