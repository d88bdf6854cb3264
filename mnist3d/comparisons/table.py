"""The table of a comparison: a row a variant, the median of its seeds, and how far they are apart.

Measurements -> rows; rows -> text for the terminal, Markdown for a page, CSV with a line for each run too.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from ..storage.labels import printable
from ..storage.plain_files import size_in_words
from .measuring import Measured
from .variants import DEFAULTS, Variant

NEVER = "never"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Args:
        key: of the CSV.
        title: what it is called.
        of: its figure of a run.
        form: a figure in words.
        short: the same where there is little room.
        spread: whether seeds differ in it.
    """

    key: str
    title: str
    of: Callable[[Measured], float | None]
    form: Callable[[float], str]
    short: str = ""
    spread: bool = True

    def value(self, run: Measured) -> float | None:
        """The figure of a run; None where it is not known."""
        found = self.of(run)
        return None if found is None else float(found)


@dataclass(frozen=True)
class Figure:
    """A figure of a variant over its seeds."""

    median: float
    lowest: float
    highest: float


@dataclass
class Row:
    """A variant and what came of it.

    Args:
        variant: which.
        runs: all of its runs, in the order of their seeds.
        figures: by the keys of `COLUMNS`; those that no run has are missing.
    """

    variant: Variant
    runs: list[Measured]
    figures: dict[str, Figure] = field(default_factory=dict)

    @property
    def done(self) -> list[Measured]:
        """The runs that are complete."""
        return [run for run in self.runs if run.state == "done"]

    @property
    def middle(self) -> Measured | None:
        """The run that stands for all: the median of the legible shares, the lower one of two; else the first."""
        found = sorted(self.done, key=lambda run: run.scores.get("legible") or 0.0)
        return found[(len(found) - 1) // 2] if found else None


def _scored(name: str) -> Callable[[Measured], float | None]:
    return lambda run: run.scores.get(name)


def _share(value: float) -> str:
    return f"{value:.2f}"


def _one_digit(value: float) -> str:
    return f"{value:.1f}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if math.isfinite(value) else NEVER


def _size(value: float) -> str:
    return size_in_words(int(value))


def _count(value: float) -> str:
    return f"{value:,.0f}"


COLUMNS = (
    Column("legible", "legible", _scored("legible"), _share),
    Column("clean", "clean", _scored("clean"), _share),
    Column("effective_classes", "classes", _scored("effective_classes"), _one_digit),
    Column(
        "frechet_distance", "Frechet distance", _scored("frechet_distance"), lambda value: f"{value:.1f}", "Frechet"
    ),
    Column("weights", "weights", lambda run: run.weights, _count, spread=False),
    Column("bytes", "on disk", lambda run: run.bytes, _size, spread=False),
    Column("steps_per_second", "steps/s", lambda run: run.steps_per_second, lambda value: f"{value:.3g}"),
    Column("peak_memory", "peak memory", lambda run: run.peak_memory, _size, "memory", spread=False),
    Column("seconds_to_half", "time to .5 legible", lambda run: run.seconds_to_half, _seconds, "to .5"),
)
ONLY_OF_RUNS = (
    Column("rarest_share", "rarest class", _scored("rarest_share"), _share),
    Column("steps", "steps", lambda run: run.steps, _count),
    Column("seconds", "seconds of training", lambda run: run.seconds, _seconds),
)


def rows_of(variants: Sequence[Variant], runs: Sequence[Measured]) -> list[Row]:
    """The rows.

    Args:
        variants: in the order of the table.
        runs: of the first seed for each variant, then of the next, as `sweeps.plan` has them.
    """
    rows = [Row(variant, [*runs[place :: len(variants)]]) for place, variant in enumerate(variants)]
    for row in rows:
        for column in (*COLUMNS, *ONLY_OF_RUNS):
            values = [value for run in row.done if (value := column.value(run)) is not None]
            if values:
                row.figures[column.key] = Figure(median(values), min(values), max(values))
    return rows


def text_of(rows: Sequence[Row]) -> list[str]:
    """The lines for a terminal: medians, and below them the lowest and the highest where seeds differ."""
    shown = _columns_with_figures(rows)
    names = [row.variant.label for row in rows]
    width = max(len("variant"), *map(len, names)) + 2
    titles = [column.short or column.title for column in shown]
    lines = [f"{'variant':{width}}" + "".join(f"{title:>13}" for title in titles)]
    for name, row in zip(names, rows, strict=True):
        figures = [row.figures.get(column.key) for column in shown]
        cells = ["-" if each is None else column.form(each.median) for column, each in zip(shown, figures, strict=True)]
        lines.append(printable(f"{name:{width}}") + "".join(f"{cell:>13}" for cell in cells))
        spreads = [_spread(column, each, "-") for column, each in zip(shown, figures, strict=True)]
        if any(spreads):
            lines.append((" " * width + "".join(f"{spread:>13}" for spread in spreads)).rstrip())
    return lines


def markdown_of(rows: Sequence[Row]) -> list[str]:
    """The lines of a table for a page."""
    shown = _columns_with_figures(rows)
    several = any(len(row.runs) > 1 for row in rows)
    lines = [_line(["", "preset", *(column.title for column in shown), *(["runs"] if several else [])])]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for row in rows:
        preset = row.variant.preset
        cells = [row.variant.label, preset if preset == DEFAULTS else f"`{preset}`"]
        for column in shown:
            figure = row.figures.get(column.key)
            spread = _spread(column, figure, " to ")
            cells.append("-" if figure is None else column.form(figure.median) + (f" ({spread})" if spread else ""))
        counted = f"{len(row.done)}" if len(row.done) == len(row.runs) else f"{len(row.done)} of {len(row.runs)}"
        lines.append(_line([*cells, *([counted] if several else [])]))
    return lines


def csv_of(rows: Sequence[Row]) -> str:
    """The medians, lowest and highest of each variant, and a line for each of its runs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = (*COLUMNS, *ONLY_OF_RUNS)
    writer.writerow(["variant", "preset", "volume", "seed", *(each.key for each in columns), "state", "path", "error"])
    for row in rows:
        begin = [row.variant.label, row.variant.preset, next((run.volume for run in row.runs if run.volume), "")]
        for kind in ("median", "lowest", "highest"):
            found = [getattr(row.figures.get(each.key), kind, None) for each in columns]
            state = f"{len(row.done)} of {len(row.runs)} done"
            writer.writerow([*begin, kind, *map(_plain, found), state, "", ""])
        for run in row.runs:
            found = [each.value(run) for each in columns]
            writer.writerow([*begin, run.seed, *map(_plain, found), run.state, run.path, run.error])
    return text.getvalue()


def _columns_with_figures(rows: Sequence[Row]) -> list[Column]:
    """Images without classes, for one, have no legible share: such a column says nothing."""
    kept = [column for column in COLUMNS if any(column.key in row.figures for row in rows)]
    return kept or [*COLUMNS]


def _spread(column: Column, figure: Figure | None, between: str) -> str:
    """The lowest and the highest; empty where there is one value, or it is of no interest."""
    if figure is None or not column.spread:
        return ""
    low, high = column.form(figure.lowest), column.form(figure.highest)
    if low == high:
        return ""
    unit = " s" if low.endswith(" s") and high.endswith(" s") else ""
    return f"{low.removesuffix(unit)}{between}{high}"


def _plain(value: float | None) -> str:
    """A figure for a program; what is not known is empty, and never is inf."""
    if value is None:
        return ""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(printable(cell).replace("|", "\\|") for cell in cells) + " |"
