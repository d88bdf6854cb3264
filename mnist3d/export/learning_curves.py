"""Learning curves of several variants in one figure, each a line with a band: the median of its seeds and their spread.

Points of single runs -> a uint8 array, dark as the view atlas is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ..storage import require

DOTS_PER_INCH = 100
BACKGROUND, INK, FAINT, GRID = "#12141a", "#e2e4ea", "#8c92a0", "#2e313a"
LEFT, RIGHT, BETWEEN, ABOVE, BELOW = 0.6, 0.2, 0.65, 0.45, 0.55  # inches, around panels
POINTS = 200  # along a median
MOST_NAMED = 12  # curves in a legend; more would cover them


@dataclass
class Curve:
    """One variant.

    Args:
        label: its name.
        colour: 0 to 255.
        runs: for each of its runs the points: x, and a value for each panel, x ascending.
    """

    label: str
    colour: tuple[int, int, int]
    runs: Sequence[Float[np.ndarray, "N P"]]


@dataclass
class Panel:
    """One diagram.

    Args:
        title: above it.
        top: of its axis.
        goal: a value that is marked by a line; None: none.
    """

    title: str
    top: float
    goal: float | None = None


def learning_curves(
    curves: Sequence[Curve], panels: Sequence[Panel], x_title: str, width: int, height: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Panels side by side.

    Args:
        curves: of all variants.
        panels: in the order of the values.
        x_title: of the x axis of all.
        width: of the figure, pixels.
        height: of the figure, pixels.

    Raises:
        ExportError: matplotlib is missing.
    """
    require("matplotlib", "learning curves")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = width / DOTS_PER_INCH, height / DOTS_PER_INCH
    figure = Figure(size, dpi=DOTS_PER_INCH, facecolor=BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    each = (size[0] - LEFT - RIGHT - BETWEEN * (len(panels) - 1)) / len(panels)
    for place, panel in enumerate(panels):
        left, high = LEFT + place * (each + BETWEEN), size[1] - ABOVE - BELOW
        axes = figure.add_axes((left / size[0], BELOW / size[1], each / size[0], high / size[1]))
        _prepare(axes, panel, x_title)
        for curve in curves:
            _draw(axes, curve, place + 1)
        axes.set_xlim(left=0.0)
        if place == len(panels) - 1 and 0 < len(axes.lines) - (panel.goal is not None) <= MOST_NAMED:
            _add_legend(axes)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def median_and_spread(runs: Sequence[Float[np.ndarray, "N P"]], column: int) -> list[Float[np.ndarray, " X"]]:
    """x, median, lowest and highest value, where all runs have been: each run is interpolated linearly.

    Args:
        runs: points of each, x in the first column.
        column: of the value.
    """
    begin, end = max(run[0, 0] for run in runs), min(run[-1, 0] for run in runs)
    x = np.linspace(begin, max(begin, end), POINTS)
    values = np.stack([np.interp(x, run[:, 0], run[:, column]) for run in runs])
    return [x, np.median(values, axis=0), values.min(axis=0), values.max(axis=0)]


def _draw(axes: Any, curve: Curve, column: int) -> None:
    runs = [run for run in curve.runs if len(run)]
    if not runs:
        return
    colour = tuple(value / 255.0 for value in curve.colour)
    x, middle, low, high = median_and_spread(runs, column)
    if len(runs) > 1:
        axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    marker = "o" if max(map(len, runs)) == 1 else None  # a line of one point is invisible
    label = f" {curve.label}" if curve.label.startswith("_") else curve.label  # a legend leaves such names out
    axes.plot(x, middle, color=colour, linewidth=1.8, marker=marker, markersize=4, label=label)


def _add_legend(axes: Any) -> None:
    legend = axes.legend(loc="best", fontsize=9, ncols=2, facecolor=BACKGROUND, edgecolor=GRID, labelcolor=INK)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a $ in a name begins no formula


def _prepare(axes: Any, panel: Panel, x_title: str) -> None:
    axes.set_facecolor(BACKGROUND)
    axes.set_title(panel.title, color=INK, fontsize=11, loc="left")
    axes.set_xlabel(x_title, color=FAINT, fontsize=9)
    axes.set_ylim(0.0, panel.top)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    for side in axes.spines.values():
        side.set_visible(False)
    if panel.goal is not None:
        axes.axhline(panel.goal, color=FAINT, linewidth=1.0, linestyle=(0, (4, 4)))
