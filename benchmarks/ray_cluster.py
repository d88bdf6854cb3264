"""A sweep on a real Ray cluster that loses a node: python benchmarks/ray_cluster.py [--runs 8] [--steps 150]

Two nodes on this machine (`ray.cluster_utils.Cluster`), of two cores and of one. Eight small runs, of which one cannot
begin, as the voxels that it starts from are missing. While a run is under way on the second node, that node is killed.
What must be: seven results, a table that says so, and exit code 1. Then the voxels are put there, and the same sweep,
on what is left of the cluster, runs the eighth and none of the others. Prints what came of it; exit code 0 if it is
that. Needs the extra "cluster"; a minute or two, with --runs 4 half of that.
"""

import argparse
import contextlib
import csv
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import yaml

from mnist3d import VoxelGrid
from mnist3d.cli.sweep import CHILD
from mnist3d.export import export_voxels
from mnist3d.storage.optional import require, to_install
from mnist3d.sweeps.folder import saved_step

BROKEN = -1  # the last run, so that each node has one that can begin
PATIENCE = 300.0  # s; a busy machine


def spec_of(steps: int, runs: int) -> dict[str, object]:
    """So many learning rates; the last run starts from a file that is not there."""
    base = {"data.limit": 100, "trainer.views": 4, "volume.resolution": 12, "scorecard.every": 0}
    base |= {"trainer.max_steps": steps, "trainer.save_every": "4steps"}
    listed: list[dict[str, object]] = [{"trainer.volume_rate": 0.05 + 0.001 * number} for number in range(runs)]
    listed[BROKEN]["start_from"] = "voxels.npz"
    return {"base": base, "configurations": listed, "score": "none"}


def started(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """A sweep as somebody would type it."""
    return subprocess.Popen([sys.executable, "-m", "mnist3d", "sweep", *words], cwd=folder)


def runs_on(node: Any) -> list[Path]:
    """The run directories of the processes below a node's raylet."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for process in psutil.Process(raylet.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if CHILD in words:
                found += [Path(word.partition("=")[2]) for word in words if word.startswith(("--run_dir", "--resume"))]
    return found


def rows(folder: Path) -> list[dict[str, str]]:
    """Of the table."""
    with open(folder / "sweep" / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> int:
    """Both sweeps, and whether all was as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150, help="of a run (default %(default)s)")
    parser.add_argument("--runs", type=int, default=8, help="4 or more (default %(default)s)")
    options = parser.parse_args()
    ray = require("ray", "this needs Ray:", remedy=to_install("cluster"))
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    wrong: list[str] = []
    began = time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    second = cluster.add_node(num_cpus=1)
    print(f"Ray {ray.__version__}, two nodes after {time.monotonic() - began:.0f} s", flush=True)
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "sweep.yaml").write_text(yaml.safe_dump(spec_of(options.steps, options.runs)), encoding="utf-8")
            sweep = started(folder, "sweep.yaml", "--output", "sweep", "--address", cluster.address)
            until = time.monotonic() + PATIENCE
            while sweep.poll() is None and time.monotonic() < until:
                if half_way := [run for run in runs_on(second) if 0 < saved_step(run)[0] < options.steps]:
                    print(f"killing the node on which {half_way[0].name} is under way", flush=True)
                    cluster.remove_node(second, allow_graceful=False)
                    break
                time.sleep(0.05)
            else:
                wrong.append("no moment came in which a run of the second node was under way")
            code = sweep.wait(PATIENCE)
            first = rows(folder)
            print((folder / "sweep" / "table.csv").read_text(), flush=True)
            if code != 1:
                wrong.append(f"exit code {code} with a run that failed, and not 1")
            if (states := Counter(row["state"] for row in first)) != {"done": options.runs - 1, "failed": 1}:
                wrong.append(f"states {dict(states)}")
            if "voxels.npz: no such file" not in first[BROKEN]["error"]:
                wrong.append(f"the error of the broken run is {first[BROKEN]['error']!r}")
            export_voxels(VoxelGrid(12), folder / "voxels.npz")
            code = started(folder, "--resume", "sweep", "--trust", "--address", cluster.address).wait(PATIENCE)
            second_rows = rows(folder)
            print((folder / "sweep" / "table.csv").read_text(), flush=True)
            if code != 0 or {row["state"] for row in second_rows} != {"done"}:
                wrong.append(f"after the voxels were put there: exit code {code}, {second_rows}")
            same = [a["seconds"] == b["seconds"] for a, b in zip(first, second_rows, strict=True)]
            if same.count(False) != 1:
                wrong.append("more than the broken run was run again")
    finally:
        cluster.shutdown()
    print(f"{time.monotonic() - began:.0f} s in all")
    print(*wrong, sep="\n") if wrong else print("all as it must be")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
