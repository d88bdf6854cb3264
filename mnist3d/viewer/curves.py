"""Curves, scores and histograms of a run, thinned for the page."""

from typing import Any

CURVE_POINTS = 300  # kept of each curve; then every second one goes
OTHER_RANGE = ("classification_loss", "diversity_loss")  # among the others they would flatten all
LARGEST = 1e30  # what a page can still plot


class Curves:
    """Values over steps, thinned so that they stay few however long the run is.

    Args:
        limit: points that are kept at most.
    """

    def __init__(self, limit: int = CURVE_POINTS) -> None:
        self.limit, self.every = limit, 1
        self.points: list[dict[str, Any]] = []

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
        names = dict.fromkeys(name for point in self.points for name in point)
        columns = {name: [point.get(name) for point in self.points] for name in names}
        return {name: column for name, column in columns.items() if name == "step" or any(column)}


def losses_of(record: dict[str, Any]) -> dict[str, Any]:
    """The curves of one step: of every figure that is called `..._loss`, by what stands before that.

    Args:
        record: a line of `stats.jsonl`, or the step and metrics of a report.
    """
    drawn = [key for key in record if key.endswith("_loss") and key not in OTHER_RANGE]
    curves = {key.removesuffix("_loss").replace("_", " "): plain(record[key]) for key in drawn}
    return {"step": plain(record.get("step")), **curves}


def histogram_of(record: dict[str, Any] | None) -> dict[str, float]:
    """The shares of the classes in a line of `stats.jsonl`; empty where it has none."""
    found = (record or {}).get("histogram")
    shares = {str(name): plain(share) for name, share in found.items()} if isinstance(found, dict) else {}
    return {name: share for name, share in shares.items() if share is not None}


def scores_of(record: dict[str, Any]) -> dict[str, Any]:
    """The scorecard's curves of one line of `stats.jsonl`."""
    return {"step": plain(record.get("step")), **{key: plain(record.get(key)) for key in ("legible", "clean")}}


def read_curves(records: list[dict[str, Any]]) -> tuple[Curves, Curves, dict[str, Any] | None]:
    """Losses, scores and the last score, of the lines of `stats.jsonl`."""
    losses, scores, last = Curves(), Curves(), None
    for record in records:
        if "legible" in record:
            scores.add(scores_of(record))
            last = record
        elif len(found := losses_of(record)) > 1:  # more than the step
            losses.add(found)
    return losses, scores, last


def plain(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST:  # nan is not, either
        return None
    return value if isinstance(value, int) else float(f"{value:.4g}")
