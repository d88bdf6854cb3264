"""A run as figures: loss curves, the scorecard over time, the view atlas.

Records of `stats.jsonl` and images -> a figure by suffix.
"""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..storage import check_output, require, whole_files, write_description
from ..storage.labels import printable

PLOT_FORMATS: dict[str, str] = {
    ".png": "everything",
    ".svg": "browsers, Inkscape",
    ".pdf": "every PDF viewer, LaTeX",
}
OTHERS = "other losses"  # where the losses of somebody else's objectives are drawn too
OTHER_RANGE = ("diversity_loss",)  # would flatten the others
# (title, [(key, label)], logarithmic)
LOSSES: list[tuple[str, list[tuple[str, str]], bool]] = [
    ("adversarial losses", [("discriminator_loss", "discriminator"), ("volume_loss", "volume")], False),
    (
        OTHERS,
        [("classification_loss", "classification"), ("nearest_loss", "nearest"), ("target_loss", "targets")],
        False,
    ),
    ("penalty", [("penalty", "R1 + R2")], True),
    ("views", [("mean_brightness", "mean brightness"), ("view_variety", "variety")], False),
]
SCORES = [("legible", "legible"), ("clean", "clean")]
MOST_ADDED, MOST_CLASSES = 12, 40  # that are drawn of what a file names, however many that are
LONGEST_LABEL = 40  # letters of a name that a file gives: matplotlib takes seconds for tens of thousands
LARGEST = 1e30  # beyond it matplotlib's own arithmetic overflows
WIDTH, ROW_HEIGHT, DOTS_PER_INCH = 10.0, 2.6, 130


def plot_run(
    path: str | Path,
    records: Sequence[dict[str, Any]],
    title: str,
    atlas: UInt8[np.ndarray, "H W 3"] | None = None,
    class_names: Sequence[str] = (),
    description: dict[str, Any] | None = None,
    colours: Sequence[tuple[int, int, int]] = (),
) -> Path:
    """Write the figure that the suffix of `path` names, and `PATH.json` beside it.

    Args:
        path: .png, .svg or .pdf.
        records: of `stats.jsonl`: dictionaries with a "step"; none, for the atlas alone.
        title: above all.
        atlas: the view atlas, below all.
        class_names: of the shares of classes in the scores.
        description: where the figures come from.
        colours: of the classes, 0 to 255, as the atlas has them; default matplotlib's own.

    Raises:
        ExportError: unknown suffix, or matplotlib is missing.
        WriteError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    suffix = check_output(path, PLOT_FORMATS)
    require("matplotlib", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scored = [record for record in records if _drawable(record.get("legible"))]
    losses = _panels(records) if records else []
    rows = len(losses) // 2 + bool(scored) + (atlas is not None)
    heights = [1.0] * (rows - (atlas is not None))
    if atlas is not None:
        heights.append(WIDTH * atlas.shape[0] / atlas.shape[1] / ROW_HEIGHT)
    figure = Figure((WIDTH, ROW_HEIGHT * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, 2, height_ratios=heights)
    figure.suptitle(printable(title), parse_math=False)  # a $ in a name begins no formula
    for k, (name, curves, logarithmic) in enumerate(losses):
        axes = figure.add_subplot(grid[k // 2, k % 2])
        for key, label in curves:
            points = [(record["step"], record[key]) for record in records if _drawable(record.get(key))]
            if any(value != 0.0 for _, value in points):
                marker = "o" if len(points) == 1 else None  # a line of one point is invisible
                axes.plot(*zip(*points, strict=True), label=label, linewidth=1.0, marker=marker, markersize=3)
        if logarithmic and axes.lines:
            axes.set_yscale("log")
        _finish(axes, name)
    if scored:
        _scores(figure, grid[len(losses) // 2, :].subgridspec(1, 2), scored, class_names, colours)
    if atlas is not None:
        axes = figure.add_subplot(grid[-1, :])
        axes.imshow(atlas, interpolation="none")
        axes.set_axis_off()
    described = {**(description or {}), "format": suffix, "records": len(records), "scores": len(scored)}
    with whole_files(path) as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # it draws a box, which says it
        figure.savefig(folder / path.name, format=suffix[1:], dpi=DOTS_PER_INCH)
        write_description(folder, path.name, described)
    return path


def _panels(records: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, str]], bool]]:
    """`LOSSES`, with the losses of other objectives among the other losses."""
    named = {key for _, curves, _ in LOSSES for key, _ in curves} | {*OTHER_RANGE}
    more = [key for key in dict.fromkeys(key for record in records for key in record) if key.endswith("_loss")]
    added = [(key, _label(key)) for key in more if key not in named][:MOST_ADDED]
    return [(title, curves + added if title == OTHERS else curves, log) for title, curves, log in LOSSES]


def _label(key: str) -> str:
    """A loss's name for a legend, however long and odd a file gives it."""
    return printable(key.removesuffix("_loss").replace("_", " "))[:LONGEST_LABEL]


def _drawable(value: Any) -> bool:
    """Whether it is a number that a plot can show; a damaged file may hold anything."""
    return isinstance(value, int | float) and abs(value) < LARGEST  # nan is not, either


def _number(value: Any) -> float:
    return float(value) if _drawable(value) else math.nan


def _finish(axes: Any, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if axes.lines:
        _legend(axes, fontsize=7)
    if not axes.lines and not axes.collections:
        axes.text(0.5, 0.5, "nothing recorded", ha="center", va="center", transform=axes.transAxes)


def _legend(axes: Any, **options: Any) -> None:
    for text in axes.legend(**options).get_texts():
        text.set_parse_math(False)


def _scores(
    figure: Any,
    grid: Any,
    scored: list[dict[str, Any]],
    class_names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> None:
    """Left the shares of legible views, right how often each class is read."""
    steps = [record["step"] for record in scored]
    axes = figure.add_subplot(grid[0, 0])
    for key, label in SCORES:
        axes.plot(steps, [_number(record.get(key)) for record in scored], "o-", label=label, markersize=3)
    axes.set_ylim(0.0, 1.0)
    _finish(axes, "scorecard: share of views")
    found = [record.get("histogram") for record in scored]
    histograms = [histogram if isinstance(histogram, dict) else {} for histogram in found]
    names = list(class_names) or sorted({name for histogram in histograms for name in histogram})
    names = names[:MOST_CLASSES]  # a legend of more is larger than the figure
    labels = [printable(name)[:9] for name in names]
    if names:
        axes = figure.add_subplot(grid[0, 1])
        shares = [[_number(histogram.get(name, 0.0)) for histogram in histograms] for name in names]
        hues = [tuple(value / 255.0 for value in colour) for colour in colours] or None
        if len(steps) == 1:  # one score is one bar, no course of time
            below = np.cumsum([0.0, *(row[0] for row in shares)])
            for k, row in enumerate(shares):
                colour = None if hues is None else hues[k % len(hues)]
                axes.bar([str(steps[0])], row, bottom=below[k], label=labels[k], color=colour)
        else:
            axes.stackplot(steps, shares, labels=labels, colors=hues)
        _finish(axes, "scorecard: share of each class")
        _legend(axes, fontsize=6, ncols=2, loc="upper left", bbox_to_anchor=(1.0, 1.0))
