"""One run on one and on two processes over gloo: steps a second, and what they send each other.

    python benchmarks/processes.py --output processes.json

Each variant's processes are started once and then take turns, a cycle of the gradient penalty (four steps) at a time,
so that a busy machine slows all alike: trust the ratios (median over the rounds of the time of one process on one
thread to the variant's in the same round), not the milliseconds. Processes that wait for each other suffer most from a
busy machine, so the time of the processor is measured too: what a step costs the busier process, without waiting, is
what is left of it on a free machine. The steps are those in the middle of a run, where
every term of the loss is at work. What is sent is counted, not measured: the bytes that each process hands to an
exchange, a step.

Written: one JSON with metadata, every time measured and the summaries that the table shows.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from renderer import machine

PROGRESS = 0.65  # past `nearest_image.start`, before the rates have fallen far
MAX_STEPS = 10_000  # any run so long that the steps measured here do not move the progress
STEPS = 4  # a round; every fourth step has the penalties


class Variant(NamedTuple):
    """How many processes, and on how many threads each."""

    processes: int
    threads: int


VARIANTS = {
    "1 process, 1 thread": Variant(1, 1),
    "1 process, 2 threads": Variant(1, 2),
    "2 processes, 1 thread each": Variant(2, 1),
}
ALONE = "1 process, 1 thread"
PRESETS = ("digits", "hash_grid", "digits --trainer.views 160")


class Count:
    """Counts exchanges of `torch.distributed` and the bytes that this process hands to them."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.exchanges = self.bytes = 0
        for name, place in (("all_reduce", 0), ("all_gather", 1), ("broadcast", 0)):
            setattr(dist, name, self._counted(getattr(dist, name), place))

    def _counted(self, function: Any, place: int) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.exchanges += 1
            self.bytes += arguments[place].numel() * arguments[place].element_size()
            return function(*arguments, **options)

        return counted


def take_part(preset: str) -> None:
    """A process of a variant: a round for each line that it reads, and the seconds of it as a line."""
    import torch

    from mnist3d.cli.parser import parse_command_line
    from mnist3d.runs.building import build_trainer
    from mnist3d.runs.joining import joined
    from mnist3d.runs.launcher import place

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    counted = Count()
    with joined(place()) as (processes, _):
        flags = ["--config", *preset.split(), "--trainer.max_steps", str(MAX_STEPS), "--device", "cpu"]
        trainer = build_trainer(parse_command_line(flags).config, processes=processes)
        trainer.steps_done = round(PROGRESS * MAX_STEPS)
        trainer._grow(PROGRESS)
        for _ in range(STEPS):  # compiles, and sends the state
            trainer.step()
        print("ready", flush=True)
        for _ in sys.stdin:
            counted.exchanges = counted.bytes = 0
            began, worked = time.perf_counter(), time.process_time()
            for _ in range(STEPS):
                trainer.step()
            seconds, worked = time.perf_counter() - began, time.process_time() - worked
            figures = seconds, worked, counted.exchanges, counted.bytes
            print(json.dumps([figure / STEPS for figure in figures]), flush=True)


class Job:
    """The processes of a variant, and what was measured of it."""

    def __init__(self, variant: Variant, preset: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        known = {"WORLD_SIZE": variant.processes, "LOCAL_WORLD_SIZE": variant.processes, "MASTER_PORT": port}
        known |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": variant.threads, "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, __file__, "--take-part", preset]
        self.started = [
            subprocess.Popen(
                command,
                env={**os.environ, **{key: str(value) for key, value in {**known, "RANK": rank}.items()}},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(variant.processes)
        ]
        for each in self.started:
            assert self._line(each) == "ready", "a process ended"
        self.rounds: list[float] = []
        self.work: list[float] = []
        self.exchanges = self.bytes = 0.0

    def _line(self, process: Any) -> str:
        return process.stdout.readline().strip()

    def run(self) -> None:
        """One round: seconds a step, of the slowest process."""
        for each in self.started:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
        found = [json.loads(self._line(each)) for each in self.started]
        seconds, work, self.exchanges, self.bytes = (max(row[k] for row in found) for k in range(4))
        self.rounds.append(seconds)
        self.work.append(work)

    def end(self) -> None:
        """No more rounds."""
        for each in self.started:
            assert each.stdin is not None
            each.stdin.close()
        for each in self.started:
            each.wait()


def measure(preset: str, rounds: int) -> dict[str, dict[str, Any]]:
    """All variants of a preset, in turn."""
    jobs = {name: Job(variant, preset) for name, variant in VARIANTS.items()}
    for _ in range(rounds):
        for job in jobs.values():
            job.run()
    for job in jobs.values():
        job.end()
    alone = jobs[ALONE]
    return {
        name: {
            "median_ms": 1e3 * median(job.rounds),
            "ratio": _ratio(alone.rounds, job.rounds),
            "processor_ms": 1e3 * median(job.work),
            "processor_ratio": _ratio(alone.work, job.work),
            "exchanges_a_step": job.exchanges,
            "bytes_a_step": job.bytes,
            "rounds_ms": [1e3 * seconds for seconds in job.rounds],
            "rounds_processor_ms": [1e3 * seconds for seconds in job.work],
        }
        for name, job in jobs.items()
    }


def _ratio(alone: list[float], own: list[float]) -> float:
    return median(first / second for first, second in zip(alone, own, strict=True))


def show(preset: str, summary: dict[str, dict[str, Any]]) -> None:
    """The table of a preset."""
    head = f"{'ms a step':>9} {'ratio':>6} {'processor':>9} {'ratio':>6} {'exchanges':>9} {'kB a step':>9}"
    print(f"{preset:28} {head}")
    for name, row in summary.items():
        figures = (
            f"{row['median_ms']:9.1f} {row['ratio']:6.2f} {row['processor_ms']:9.1f} {row['processor_ratio']:6.2f}"
        )
        figures += f" {row['exchanges_a_step']:9.2f}"
        print(f"  {name:26} {figures} {row['bytes_a_step'] / 1e3:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="One run on one and on two processes.")
    parser.add_argument("--output", type=Path, default=Path("processes.json"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--take-part", metavar="PRESET", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.take_part:
        take_part(options.take_part)
        return
    found = {}
    for preset in options.presets:
        found[preset] = measure(preset, options.rounds)
        show(preset, found[preset])
        result = {"machine": machine(1), "steps_a_round": STEPS, "rounds": options.rounds, "presets": found}
        options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
