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
from PIL import Image

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
# Places are fixed, in inches: to measure every text and then place all takes longer than to draw.
WIDTH, ROW_HEIGHT, DOTS_PER_INCH = 10.0, 2.5, 130
HEAD, LEFT, RIGHT, BETWEEN = 0.45, 0.6, 0.2, 0.7  # above the first row, beside and between panels
ABOVE, BELOW = 0.3, 0.45  # in a row: the title, the numbers and the word below them
CLASSES, CLASS_ROWS = 0.78, 14  # beside the panel of their shares: a column of names, so many in each
BESIDE_TITLE, MARK, LETTER = 2.9, 0.45, 0.055  # room for a legend; what a line's mark and a letter take of it
TITLE_SIZE, TITLE_LETTERS = 13.0, 85  # points; more letters are drawn smaller
TICKS = 6  # on an axis, at most
Box = tuple[float, float, float, float]  # left, down from the top, width, height


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
    rows = len(losses) // 2 + bool(scored)
    wide, high = _atlas_size(atlas)
    height = HEAD + ROW_HEIGHT * rows + high
    figure = Figure((WIDTH, height), dpi=DOTS_PER_INCH)
    canvas = FigureCanvasAgg(figure)
    title = printable(title)
    size = min(TITLE_SIZE, TITLE_SIZE * TITLE_LETTERS / max(len(title), 1))
    # a $ in a name begins no formula
    figure.text(0.5, 1.0 - HEAD / 2 / height, title, ha="center", va="center", size=size, parse_math=False)
    for k, (name, curves, logarithmic) in enumerate(losses):
        axes = _axes(figure, _box(k // 2, k % 2))
        for key, label in curves:
            points = [(record["step"], record[key]) for record in records if _drawable(record.get(key))]
            if any(value != 0.0 for _, value in points):
                marker = "o" if len(points) == 1 else None  # a line of one point is invisible
                axes.plot(*zip(*points, strict=True), label=label, linewidth=1.0, marker=marker, markersize=3)
        if logarithmic and axes.lines:
            _logarithmic(axes)
        _finish(axes, name)
    if scored:
        _scores(figure, len(losses) // 2, scored, class_names, colours)
    place = (WIDTH - wide) / 2, height - high, wide, high - RIGHT
    if atlas is not None and suffix != ".png":
        axes = _axes(figure, place)
        axes.imshow(atlas, interpolation="none", aspect="auto")
        axes.set_axis_off()
    described = {**(description or {}), "format": suffix, "records": len(records), "scores": len(scored)}
    with whole_files(path) as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)  # it draws a box, which says it
        if suffix == ".png":
            canvas.draw()
            _write_png(folder / path.name, np.asarray(canvas.buffer_rgba()), atlas, place)
        else:
            figure.savefig(folder / path.name, format=suffix[1:])
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


def _box(row: int, column: int) -> Box:
    """Of a panel without the texts around it."""
    width = (WIDTH - LEFT - BETWEEN - RIGHT) / 2
    return LEFT + column * (width + BETWEEN), HEAD + row * ROW_HEIGHT + ABOVE, width, ROW_HEIGHT - ABOVE - BELOW


def _axes(figure: Any, box: Box) -> Any:
    """A panel in its place, inches."""
    left, down, width, height = box
    whole = figure.get_figheight()
    return figure.add_axes((left / WIDTH, 1.0 - (down + height) / whole, width / WIDTH, height / whole))


def _atlas_size(atlas: UInt8[np.ndarray, "H W 3"] | None) -> tuple[float, float]:
    """Width and height of its place, inches, with the margin below it; it is never enlarged."""
    if atlas is None:
        return 0.0, 0.0
    wide = min(WIDTH - 2 * RIGHT, atlas.shape[1] / DOTS_PER_INCH)
    return wide, wide * atlas.shape[0] / atlas.shape[1] + RIGHT


def _write_png(
    path: Path, drawn: UInt8[np.ndarray, "H W 4"], atlas: UInt8[np.ndarray, "h w 3"] | None, place: Box
) -> None:
    """What matplotlib drew, and the atlas as large as it is shown: its letters stay letters, in a tenth of the time."""
    image = Image.fromarray(drawn[..., :3])
    if atlas is not None:
        left, down, width, height = (round(DOTS_PER_INCH * edge) for edge in place)
        size = max(1, width), max(1, height)
        image.paste(Image.fromarray(atlas).resize(size, Image.Resampling.LANCZOS), (left, down))
    image.save(path, "PNG")


def _logarithmic(axes: Any) -> None:
    """A logarithmic axis whose numbers are text: matplotlib's powers are formulas, which it takes long to set."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(numticks=TICKS) if high > 20.0 * low else MaxNLocator(TICKS))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:.3g}")


def _finish(axes: Any, title: str, *, legend: bool = True) -> None:
    from matplotlib.ticker import AutoLocator, MaxNLocator

    axes.set_title(title, fontsize=10, loc="left", y=1.0)  # where y is given, nothing is measured
    width, height = axes.bbox.size / axes.figure.dpi
    axes.set_xlabel("step", fontsize=8)
    axes.xaxis.set_label_coords(0.5, -0.25 / height)
    axes.yaxis.set_label_coords(-0.5 / width, 0.5)  # likewise
    for axis in (axes.xaxis, axes.yaxis):
        if isinstance(axis.get_major_locator(), AutoLocator):
            axis.set_major_locator(MaxNLocator(TICKS, steps=[1, 2, 2.5, 5, 10], integer=axis is axes.xaxis))
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    if axes.lines and legend:
        labels = axes.get_legend_handles_labels()[1]
        if sum(MARK + LETTER * len(label) for label in labels) <= BESIDE_TITLE:
            place = {"loc": "lower right", "bbox_to_anchor": (1.0 + 0.08 / width, 1.0 - 0.02 / height)}
            _legend(axes, fontsize=7, ncols=len(labels), frameon=False, columnspacing=1.0, **place)
        else:
            _legend(axes, fontsize=6, ncols=1 if len(labels) <= 8 else 2, loc="upper right")
    if not axes.has_data():
        axes.text(0.5, 0.5, "nothing recorded", ha="center", va="center", transform=axes.transAxes)


def _legend(axes: Any, **options: Any) -> None:
    for text in axes.legend(**options).get_texts():
        text.set_parse_math(False)


def _scores(
    figure: Any,
    row: int,
    scored: list[dict[str, Any]],
    class_names: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> None:
    """Left the shares of legible views, right how often each class is read."""
    steps = [record["step"] for record in scored]
    axes = _axes(figure, _box(row, 0))
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
        left, down, width, height = _box(row, 1)
        columns = math.ceil(len(names) / CLASS_ROWS)
        axes = _axes(figure, (left, down, width - CLASSES * columns, height))
        shares = [[_number(histogram.get(name, 0.0)) for histogram in histograms] for name in names]
        hues = [tuple(value / 255.0 for value in colour) for colour in colours] or None
        if len(steps) == 1:  # one score is one bar, no course of time
            below = np.cumsum([0.0, *(values[0] for values in shares)])
            for k, values in enumerate(shares):
                colour = None if hues is None else hues[k % len(hues)]
                axes.bar([str(steps[0])], values, bottom=below[k], label=labels[k], color=colour)
        else:
            axes.stackplot(steps, shares, labels=labels, colors=hues)
        _finish(axes, "scorecard: share of each class", legend=False)
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        _legend(axes, fontsize=6, ncols=columns, columnspacing=1.0, labelspacing=0.3, **place)
