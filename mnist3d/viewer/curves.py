"""Curves, scores and histograms of a run, thinned for the page."""

import itertools
from typing import Any

CURVE_POINTS = 300  # kept of each curve; then every second one goes
OTHER_RANGE = ("classification_loss", "diversity_loss")  # among the others they would flatten all
LARGEST = 1e30  # what a page can still plot
MAX_CURVES = 24  # in one plot; what a damaged or hostile file names beyond that is left out
MAX_CLASSES = 1000  # in one histogram
LONGEST_NAME = 40  # characters


class Curves:
    """Values over steps, thinned so that they stay few however long the run is.

    Args:
        limit: points that are kept at most.
    """

    def __init__(self, limit: int = CURVE_POINTS) -> None:
        self.limit, self.every = limit, 1
        self.points: list[dict[str, Any]] = []
        self.left_out = 0  # values that are no finite numbers

    def add(self, values: dict[str, Any]) -> None:
        """One more point; its step decides whether it is kept."""
        if values["step"] is None or int(values["step"]) % self.every:
            return
        self.points.append(values)
        if len(self.points) > self.limit:
            self.every *= 2
            kept = [point for point in self.points if int(point["step"]) % self.every == 0]
            self.points = kept if len(kept) < len(self.points) else kept[::2]  # steps that repeat, in a damaged file

    def as_columns(self) -> dict[str, list[Any]]:
        """{"step": [...], name: [...]}; a name that never differed from 0 is left out."""
        columns: dict[str, list[Any]] = {}
        for name in dict.fromkeys(name for point in self.points for name in point):
            column = [point.get(name) for point in self.points]
            if (name == "step" or any(column)) and len(columns) <= MAX_CURVES:
                columns[name] = column
        return columns

    @property
    def note(self) -> str:
        """What is missing, in a line for the page; empty where nothing is."""
        return (
            f"{self.left_out:,} values in stats.jsonl are no finite numbers and are not shown" if self.left_out else ""
        )


def losses_of(record: dict[str, Any]) -> dict[str, Any]:
    """The curves of one step: of every figure that is called `..._loss`, by what stands before that.

    Args:
        record: a line of `stats.jsonl`, or the step and metrics of a report.
    """
    curves = {_loss_name(key): plain(record[key]) for key in _losses(record)}
    return {"step": plain(record.get("step")), **curves}


def _losses(record: dict[str, Any]) -> list[str]:
    return [key for key in record if key.endswith("_loss") and key not in OTHER_RANGE][:MAX_CURVES]


def _loss_name(key: str) -> str:
    return key.removesuffix("_loss").replace("_", " ")[:LONGEST_NAME]


def histogram_of(record: dict[str, Any] | None) -> dict[str, float]:
    """The shares of the classes in a line of `stats.jsonl`; empty where it has none."""
    found = (record or {}).get("histogram")
    shares = (
        {str(name)[:LONGEST_NAME]: plain(share) for name, share in found.items()} if isinstance(found, dict) else {}
    )
    shares = dict(itertools.islice(shares.items(), MAX_CLASSES))
    return {name: share for name, share in shares.items() if share is not None}


def scores_of(record: dict[str, Any]) -> dict[str, Any]:
    """The scorecard's curves of one line of `stats.jsonl`."""
    return {"step": plain(record.get("step")), **{key: plain(record.get(key)) for key in ("legible", "clean")}}


def read_curves(records: list[dict[str, Any]]) -> tuple[Curves, Curves, dict[str, Any] | None]:
    """Losses, scores and the last score, of the lines of `stats.jsonl`; the losses count what is left out of both."""
    losses, scores, last = Curves(), Curves(), None
    for record in records:
        if "legible" in record:
            scores.add(scores_of(record))
            last = record
        elif len(found := losses_of(record)) > 1:  # more than the step
            losses.add(found)
        read = ["step", "legible", "clean", *_losses(record)]
        losses.left_out += sum(plain(record[key]) is None for key in read if record.get(key) is not None)
    return losses, scores, last


def plain(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:  # nan is not, either
        return None
    return value if isinstance(value, int) else float(f"{value:.4g}")
