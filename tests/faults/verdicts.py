"""What a command line may do to a user, and the table of those that were tried."""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from watched import SECONDS, Case, Outcome, removed, run_alone, run_forked

PEAK = 1024.0  # MiB, torch included
WARNING = re.compile(r"\.py:\d+: \w*Warning: .*")
LINE = 4000  # characters of one line that a terminal can still be asked to show
WHERE_SLOW = {"loading PyTorch ..."}  # said first where that takes many seconds, as on a busy machine


def faults(case: Case, outcome: Outcome) -> list[str]:
    """What a user should not have met; nothing where all is well."""
    found = []
    name = Path(case.program).name if case.program != "mnist3d" else r"mnist3d"
    if outcome.ended.startswith("killed"):
        return [outcome.ended]
    if outcome.code < 0:
        return [f"signal {-outcome.code}"]
    if "Traceback" in outcome.stderr or "Traceback" in outcome.stdout:
        found.append("traceback: " + outcome.stderr.strip().splitlines()[-1][:300])
    elif outcome.code == 2:
        lines = [line for line in outcome.stderr.splitlines() if line not in WHERE_SLOW]
        if len(lines) != 1:
            found.append(f"{len(lines)} lines on stderr: " + " | ".join(line[:150] for line in lines[:4]))
        elif ": error: " not in lines[0] or name not in lines[0].partition(": error: ")[0]:
            found.append(f"no line of {name}: {lines[0][:300]}")
        elif len(lines[0]) > LINE:
            found.append(f"a line of {len(lines[0])} characters: {lines[0][:200]}")
        if any(not (letter.isprintable() or letter == " ") for line in lines for letter in line):
            found.append(f"a letter that no terminal should get: {lines[0][:300]!r}")
        if outcome.changed:
            found.append(f"refused, but changed {', '.join(outcome.changed[:5])}")
    elif outcome.code == 1:
        if "the watchdog" not in outcome.stderr and "gave up" not in outcome.stderr:
            found.append("exit code 1: " + outcome.stderr.strip()[-300:])
    elif outcome.code not in (0, *((130,) if outcome.ended == "stopped" else ())):
        found.append(f"exit code {outcome.code}: {outcome.stderr.strip()[-300:]}")
    if warned := WARNING.search(outcome.stderr):
        found.append(f"a warning of Python's: {warned[0][:200]}")
    if outcome.seconds > SECONDS and not outcome.ended:
        found.append(f"{outcome.seconds:.1f} s of computing")
    if outcome.peak > PEAK and (outcome.code == 2 or case.small):
        found.append(f"peak memory {outcome.peak:.0f} MiB")
    return found


@dataclass
class Report:
    """All outcomes of a script, and the table of them.

    Args:
        seed: of the cases.
        baseline: peak memory of a fork that does nothing, MiB; alone: of a new interpreter with torch.
        samples: cases that were run in an interpreter of their own too.
    """

    seed: int
    baseline: float
    rows: list[tuple[Case, Outcome, list[str]]] = field(default_factory=list)
    samples: list[tuple[Case, Outcome, list[str]]] = field(default_factory=list)

    def add(self, case: Case, outcome: Outcome, also: Sequence[str] = ()) -> None:
        """Judge a case, and say at once what failed."""
        found = [*faults(case, outcome), *also]
        self.rows.append((case, outcome, found))
        if found:
            print(_failure(case, found), flush=True)

    def compare(self, case: Case, forked: Outcome, alone: Outcome) -> None:
        """A case that was run both ways: it ended alike."""
        found = faults(case, alone)
        # what works says how fast, each time another number
        both = [(each.code, each.stderr.strip() if each.code == 2 else "") for each in (forked, alone)]
        if both[0] != both[1] and not found and not forked.ended:
            found = [f"a fork said {both[0]}, a process of its own {both[1]}"]
        self.samples.append((case, alone, found))
        if found:
            print("in a process of its own: " + _failure(case, found), flush=True)

    @property
    def failures(self) -> int:
        """How many cases failed."""
        return sum(bool(found) for _, _, found in [*self.rows, *self.samples])

    def print(self) -> None:
        """Counts by kind, the worst time and memory, and what failed."""
        print(f"\n{'kind':28}{'tried':>7}{'code 2':>8}{'code 0':>8}{'other':>7}{'failed':>8}")
        kinds = Counter(case.kind for case, _, _ in self.rows)
        for kind, tried in sorted(kinds.items()):
            of = [(outcome, found) for case, outcome, found in self.rows if case.kind == kind]
            codes = Counter(outcome.code if outcome.code in (0, 2) else 1 for outcome, _ in of)
            failed = sum(bool(found) for _, found in of)
            print(f"{kind:28}{tried:7}{codes[2]:8}{codes[0]:8}{codes[1]:7}{failed:8}")
        slowest = max(self.rows, key=lambda row: row[1].seconds)
        refused = [row for row in self.rows if row[1].code == 2] or self.rows
        largest = max(refused, key=lambda row: row[1].peak)
        ended = [case for case, outcome, _ in self.rows if outcome.code == 130]
        gave_up = [case for case, outcome, found in self.rows if outcome.code == 1 and not found]
        print(f"\n{len(self.rows)} cases of seed {self.seed}: {self.failures} failed")
        print(f"longest: {slowest[1].seconds:.1f} s of one core: {slowest[0].line()[:200]}")
        print(f"a fork that does nothing: {self.baseline:.0f} MiB; most memory of what was refused: ", end="")
        print(f"{largest[1].peak:.0f} MiB: {largest[0].line()[:200]}")
        for what, cases in (("valid, long, ended by Ctrl-C", ended), ("valid, given up by the watchdog", gave_up)):
            for case in cases:
                print(f"{what}: {case.line()[:200]}")
        if self.samples:
            failed = sum(bool(found) for _, _, found in self.samples)
            most = max(outcome.peak for _, outcome, _ in self.samples)
            tried = f"{len(self.samples)} of these cases, at most {most:.0f} MiB"
            print(f"in an interpreter of their own: {tried}, {failed} ended otherwise")

    def as_json(self) -> str:
        """Everything, for a machine."""
        rows = [
            {**asdict(case), "folder": None, "line": case.line(), **asdict(outcome), "faults": found}
            for case, outcome, found in self.rows
        ]
        return json.dumps({"seed": self.seed, "baseline_mib": self.baseline, "cases": rows}, indent=1)


def _failure(case: Case, found: Sequence[str]) -> str:
    what = f"   [{case.what}]" if case.what else ""
    text = f"FAILED {case.number} {case.kind}: {case.line()[:600]}{what}\n    " + "\n    ".join(found)
    return text.encode("utf-8", "backslashreplace").decode()


def arguments_of(description: str | None, count: int = 300) -> argparse.Namespace:
    """The options that these scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=count, help="number of cases (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (default %(default)s)")
    parser.add_argument("--only", type=int, help="run one case, by its number, and print what it says")
    parser.add_argument(
        "--alone", type=int, default=20, help="cases run in a new interpreter too (default %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="file for all outcomes, as JSON")
    return parser.parse_args()


def judge(
    options: argparse.Namespace,
    count: int,
    make: Callable[[int], Case],
    scratch: Path,
    also: Callable[[Case], list[str]] = lambda _: [],
) -> int:
    """Run the cases of a script, print their table; the exit code.

    Args:
        options: of `arguments_of`.
        count: number of cases.
        make: the case of a number, its folder new and filled.
        scratch: holds the folders.
        also: what else a case did that it must not.
    """
    nothing = Case(-1, "nothing", "mnist3d", ["--version"], scratch)
    report = Report(options.seed, run_forked(nothing).peak)
    chosen = range(count) if options.only is None else [options.only]
    every = max(1, count // max(1, options.alone))
    for number in chosen:
        case = make(number)
        outcome = run_forked(case)
        report.add(case, outcome, also(case))
        if options.only is not None:
            print(f"$ {case.line()}   [{case.what}]\nexit code {outcome.code} {outcome.ended}")
            print(outcome.stdout[-4000:], outcome.stderr[-4000:], sep="\n")
        elif options.alone and number % every == 0 and outcome.code in (0, 2) and not outcome.ended:
            again = make(number)
            report.compare(again, outcome, run_alone(again))
        removed(case.folder)
    report.print()
    if options.output:
        options.output.write_text(report.as_json(), encoding="utf-8", errors="backslashreplace")
    return 1 if report.failures else 0
