"""Processor seconds until a command answers: python benchmarks/start_up.py [--before CLONE] [--output JSON].

Each command is a process of its own with one thread; its seconds are those of the processor, user and system together,
so that a busy machine changes them less than the clock's. All commands run once a round, importing torch first, so a
slow minute slows them alike. The least of the rounds counts, as anything else is only ever added to it.

`--before` runs the programs of an older clone (`train.py`, `inference.py`, `tools/`) in the same rounds.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mnist3d.cli.program import COMMANDS, run_command_line
from mnist3d.cli.tool_parser import OneLineParser, in_range
from mnist3d.errors import UserError
from mnist3d.invocation import PROGRAMS
from mnist3d.storage.environment import environment

ROUNDS = 5
RUN = Path(__file__).parent.parent / "tests" / "data" / "run_of_0_1_dense"  # which every version reads
SMALL = {  # exports of a run of a few steps, whose seconds are those of what must be imported
    "voxels": ["--output", "sculpture.npz"],
    "page": ["--output", "sculpture.html"],
    "orbit": ["--output", "strip.png", "--frames", "8", "--size", "32"],
    "view": ["--snapshot", "views.png"],
    "mesh": ["--output", "sculpture.stl"],
    "points": ["--output", "sculpture.ply", "--count", "500"],
    "plot": ["--output", "run.png"],
}


def processor_seconds(words: Sequence[str], folder: Path, package: Path | None) -> float:
    """Of one process and all it starts.

    Args:
        words: the command line, without the Python that runs it.
        folder: where it works.
        package: the clone whose package it imports; None for the installed one.
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    if package is not None:
        variables["PYTHONPATH"] = str(package)
    before = os.times()
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    after = os.times()
    if done.returncode != 0 and "unknown" not in words:
        raise UserError(f"{' '.join(words)}: {done.stderr.strip()[-300:]}")
    return after.children_user - before.children_user + after.children_system - before.children_system


def command_lines(before: Path | None) -> dict[str, tuple[list[str], Path | None]]:
    """Name -> words, and the clone they belong to."""
    lines: dict[str, tuple[list[str], Path | None]] = {"import torch": (["-c", "import torch"], None)}
    ours = ["-m", "mnist3d"]
    lines |= {name: ([*ours, name], None) for name in ("--help", "presets", "unknown")}
    lines |= {f"{name} --help": ([*ours, name, "--help"], None) for name in COMMANDS}
    lines |= {f"{name} {rest[1]}": ([*ours, name, "run", *rest], None) for name, rest in SMALL.items()}
    if before is not None:
        for name, program in PROGRAMS.items():
            lines[f"before: {program} --help"] = ([str(before / program), "--help"], before)
            if name in SMALL:
                lines[f"before: {program} {SMALL[name][1]}"] = ([str(before / program), "run", *SMALL[name]], before)
    return lines


def main(arguments: Sequence[str]) -> None:
    """Run the rounds, print a table, write it."""
    parser = OneLineParser(prog="start_up.py", description="Processor seconds until a command answers.")
    parser.add_argument("--before", type=Path, help="a clone of an older version")
    parser.add_argument("--rounds", type=in_range(int, 1, 100), default=ROUNDS, help="default %(default)s")
    parser.add_argument("--output", type=Path, help="JSON file; default none")
    options = parser.parse_args(arguments)
    lines = command_lines(None if options.before is None else options.before.resolve())
    seconds: dict[str, list[float]] = {name: [] for name in lines}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(RUN, Path(folder) / "run")
        for _ in range(options.rounds):
            for name, (words, package) in lines.items():
                seconds[name].append(processor_seconds(words, Path(folder), package))
    least = {name: min(each) for name, each in seconds.items()}
    print(f"{'processor seconds':40}{'least':>8}{'median':>8}{'over torch':>12}")
    for name, each in seconds.items():
        middle = sorted(each)[len(each) // 2]
        print(f"{name:40}{least[name]:8.2f}{middle:8.2f}{least[name] - least['import torch']:12.2f}")
    if options.output is not None:
        record = {"environment": environment("cpu"), "rounds": options.rounds, "least": least, "all": seconds}
        options.output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    run_command_line(main)
