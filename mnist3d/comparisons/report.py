"""What a comparison leaves beside its runs: `comparison.csv`, `comparison.md` and `comparison.png`."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import one_line
from ..evaluation.scores import VIEWS
from ..runs.at_work import AtWork
from ..runs.config import Config
from ..storage.environment import environment
from ..sweeps.folder import Record, SweepFolder
from ..sweeps.session import in_words
from .figure import figure_of
from .measuring import Measured, Measuring
from .options import SPEC_FILE, CompareOptions
from .table import Row, csv_of, markdown_of, rows_of
from .variants import Variant

CSV_FILE, MARKDOWN_FILE, FIGURE_FILE = "comparison.csv", "comparison.md", "comparison.png"
FOLDERS = ("runs", "configs", "logs")  # of a comparison's folder
CPU_NAMES = Path("/proc/cpuinfo")


class Report:
    """The last stage of a comparison.

    Args:
        folder: taken for this process.
        options: of the comparison.
        variants: in the order of the table.
        configs: of each run, by its name.
        records: of each run, in the order of the plan.
        measuring: has the classifiers.
        at_once: how many runs went on at the same time.
    """

    def __init__(
        self,
        folder: SweepFolder,
        options: CompareOptions,
        variants: Sequence[Variant],
        configs: Mapping[str, Config],
        records: Sequence[Record],
        measuring: Measuring,
        at_once: int,
    ) -> None:
        self.folder, self.options, self.variants, self.configs = folder, options, variants, configs
        self.records, self.measuring, self.at_once = records, measuring, at_once
        self.rows: list[Row] = []
        self.missing = ""
        """What is missing in the figure, in words."""

    def write(self) -> None:
        """Measure the runs that are complete, and write the three files; a run that cannot be measured has failed."""
        with AtWork("measuring the runs") as work:
            runs = [self._measured(record) for record in work.over(self.records, len(self.records))]
            self.rows = rows_of(self.variants, runs)
            self.folder.write(CSV_FILE, csv_of(self.rows))
            self.folder.write(MARKDOWN_FILE, self.markdown())
            work.tell(1.0, "drawing the figure")
            by_steps, place = self.options.steps is not None, self.folder.path / "runs"
            content, self.missing = figure_of(self.rows, place, self.configs, self.measuring, by_steps)
            if content:
                self.folder.write_bytes(FIGURE_FILE, content)

    def markdown(self) -> str:
        """The table and what it needs to be understood, ready for a page."""
        lines = [*markdown_of(self.rows), ""]
        lines += [f"`{self.options.as_typed()}`", ""]
        lines += [" ".join([*self._how_long(), *self._how_scored()]), "", f"{self._where()}", ""]
        failed = [run for row in self.rows for run in row.runs if run.error]
        if failed:
            lines += ["Runs that failed:", "", *(f"- {run.name}: {one_line(run.error)}" for run in failed), ""]
        return "\n".join(lines)

    def _measured(self, record: Record) -> Measured:
        path = self.folder.run(record.name)
        found = Measured(record.name, record.planned.settings["seed"], record.standing.state, record.error)
        if record.step:
            found.path = f"runs/{record.name}"
        if found.state != "done":
            return found
        try:
            self.measuring.measure(path, self.configs[record.name], found)
        except Exception as error:  # as where a sweep scores: the other runs are measured
            found.state = record.standing.state = "failed"
            found.error = record.error = one_line(in_words(error))
        return found

    def _how_long(self) -> list[str]:
        options, seeds = self.options, self.options.seeds
        several = f", seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f", seed {seeds[0]}"
        cores = f"{options.places_in_words} a run, {self.at_once} at a time"
        spread = "In brackets: the lowest and the highest of the seeds, beside their median." if len(seeds) > 1 else ""
        return list(filter(None, [f"{options.length} of training a run{several}; {cores}.", spread]))

    def _how_scored(self) -> list[str]:
        measured = [run for row in self.rows for run in row.done]
        unread = [f"No scores of {run.name}: {run.unread}." for run in _of_each_reason(measured)]
        done = [run for run in measured if run.classifiers]
        memory = ["Memory: the most that the whole process held."] if measured else []
        if not done:
            return [*unread, *memory]
        poses = ", ".join(dict.fromkeys(run.poses for run in done))
        versions = ", ".join(dict.fromkeys(run.classifiers for run in done))
        said = [
            f"Scores: {VIEWS:,} views of the last volume from directions of the run's own pose distribution ({poses}), "
            f"read by the scorecard's classifiers (`{versions}`), by which nothing was chosen here."
        ]
        if any(run.curve for run in done):
            said.append("Time to .5 legible: training time until the same classifiers first read half of 200 views.")
        return [*said, *unread, *memory]

    def _where(self) -> str:
        """The machine and the versions."""
        found = environment("cpu")
        versions = ", ".join(f"{name} {found['packages'][name]}" for name in ("torch", "numba"))
        commit = "" if found["git_commit"] is None else f", commit {found['git_commit']}"
        return f"{_processor()}, {os.cpu_count()} cores; Python {found['python']}, {versions}{commit}."


def _of_each_reason(runs: Sequence[Measured]) -> list[Measured]:
    """The first of the runs without scores for each reason."""
    first = {run.unread: run for run in reversed(runs) if run.unread}
    return [run for run in runs if first.get(run.unread) is run]


def _processor() -> str:
    """The name of the processor, as far as the system says it."""
    try:
        for line in CPU_NAMES.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return one_line(line.partition(":")[2].strip())
    except (OSError, ValueError):
        pass
    return platform.processor() or platform.machine()


def is_comparison(path: Path) -> bool:
    """Whether a folder holds one."""
    return (path / SPEC_FILE).is_file()
