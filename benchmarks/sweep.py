"""What a sweep is worth: python benchmarks/sweep.py [--parts best throughput] [--output JSON]

best: eight seeds of the default digits, `--steps` long, as one sweep. The run that the classifiers for selection like
best against the mean of all, by the scorecard's own classifiers, which have no part in the choice: 2,000 views each of
the run's own pose distribution and of the sphere.

throughput: runs of the default digits on all cores of this machine, in three ways, one after the other: a sweep; a
shell loop, one run at a time with a thread for each core; and as many at a time as there are cores (`xargs -P`), one
thread each. By the clock, for which nothing else should run, and in seconds of the processors.

The JSON is written after each part, and keeps those that were not measured this time.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, stdev
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from mnist3d import load_run
from mnist3d.data.images import load_images
from mnist3d.evaluation import fixed_rotations, load_classifiers, score_images
from mnist3d.rendering.renderer import render_views
from mnist3d.storage.environment import environment
from mnist3d.sweeps.local import usable_cores

PROGRAM = [sys.executable, "-m", "mnist3d"]


def sweep_of(folder: Path, runs: int, steps: int, *words: str) -> list[dict[str, str]]:
    """The rows of the table of a sweep over seeds."""
    spec = f"base: {{trainer.max_steps: {steps}, scorecard.every: 0}}\nseeds: {runs}\n"
    (folder / "seeds.yaml").write_text(spec, encoding="utf-8")
    subprocess.run([*PROGRAM, "sweep", "seeds.yaml", "--output", "sweep", *words], cwd=folder, check=True)
    with open(folder / "sweep" / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def best(folder: Path, runs: int, steps: int, at_once: int) -> dict[str, Any]:
    """The chosen run against the mean of all."""
    rows = sweep_of(folder, runs, steps, "--at_once", str(at_once))
    found: dict[str, Any] = {"runs": runs, "steps": steps, "selection": [float(row["score"]) for row in rows]}
    classifiers = None
    for row in rows:
        run = load_run(folder / "sweep" / row["path"])
        if classifiers is None:
            held_out = load_images(run.config.data, run.config.renderer.image_size, "held_out")
            classifiers = load_classifiers(held_out.images, held_out.labels, held_out.class_names)
        for name, rotations in fixed_rotations(run.config.poses).items():
            score = score_images(render_views(run.volume, run.renderer, rotations), classifiers)
            for key in ("legible", "clean", "effective_classes"):
                found.setdefault(f"{name} {key}", []).append(round(float(getattr(score, key)), 4))
    chosen = max(range(runs), key=lambda k: found["selection"][k])
    found["chosen"] = chosen
    for key in [key for key in found if " " in key]:
        each = found[key]
        spread = stdev(each) if runs > 1 else 0.0
        found[f"{key}: chosen over mean"] = round(each[chosen] - mean(each), 4)
        print(
            f"{key:32} chosen {each[chosen]:.3f}  mean {mean(each):.3f} +- {spread:.3f}  "
            f"gain {each[chosen] - mean(each):+.3f}  highest {max(each):.3f}"
        )
    return found


def train(folder: Path, name: str, seed: int, steps: int, threads: int) -> "subprocess.Popen[bytes]":
    """One run of the loop."""
    words = [f"--trainer.max_steps={steps}", "--scorecard.every=0", f"--seed={seed}", "--viewer.enabled=false"]
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [*PROGRAM, "train", *words, f"--run_dir={name}"], cwd=folder, env=variables, stdout=log, stderr=log
        )


def throughput(folder: Path, runs: int, steps: int) -> dict[str, Any]:
    """Seconds of all runs in three ways."""
    cores = usable_cores()
    found: dict[str, Any] = {"runs": runs, "steps": steps, "cores": cores, "load_before": os.getloadavg()[0]}
    (folder / "first").mkdir()
    sweep_of(folder / "first", 1, 2)  # trains the classifiers for selection, once for all sweeps of these images
    with measured(found, "sweep"):
        sweep_of(folder, runs, steps)
    with measured(found, "one at a time"):
        for seed in range(runs):
            if train(folder, f"loop{seed}", seed, steps, cores).wait():
                raise SystemExit((folder / "log").read_text()[-500:])
    with measured(found, f"{cores} at a time"):
        under_way, left = [], list(range(runs))
        while left or under_way:
            under_way = [process for process in under_way if process.poll() is None]
            while left and len(under_way) < cores:
                seed = left.pop(0)
                under_way.append(train(folder, f"xargs{seed}", seed, steps, 1))
            time.sleep(0.05)
    return found


@contextmanager
def measured(found: dict[str, Any], name: str) -> Iterator[None]:
    """Notes the seconds of the block by the clock, and those of the processor in all processes that it starts."""
    began, before = time.perf_counter(), os.times()
    yield
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    found[name] = {"seconds": round(time.perf_counter() - began, 1), "processor_seconds": round(spent, 1)}
    rate = 3600 * found["runs"] / found[name]["seconds"]
    print(
        f"{name:16} {found[name]['seconds']:7.1f} s, {spent:7.1f} s of processors, {rate:6.1f} runs an hour", flush=True
    )


def main() -> None:
    """The parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("best", "throughput"), default=["best", "throughput"])
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--at_once", type=int, default=usable_cores(), help="runs at the same time, of the part best")
    parser.add_argument("--output", type=Path, help="JSON file; default none")
    options = parser.parse_args()
    record: dict[str, Any] = {}
    if options.output is not None and options.output.is_file():
        record = json.loads(options.output.read_text())
    for part in options.parts:
        with tempfile.TemporaryDirectory() as place:
            if part == "best":
                found = best(Path(place), options.runs, options.steps, options.at_once)
            else:
                found = throughput(Path(place), options.runs, options.steps)
        record[part] = {"environment": environment("cpu"), **found}
        if options.output is not None:
            options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
