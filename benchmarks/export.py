"""Seconds and peak memory of every voxel format and of a mesh at 256^3: python benchmarks/export.py [--output JSON].

Seconds are by the clock and, as the machine may be busy with other things, of the processor.

Each format is written by a process of its own, which makes the array, then exports it; the memory is the process's
peak minus what it was after the imports, so it counts the array itself.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mnist3d.cli.program import run_command_line
from mnist3d.cli.tool_parser import OneLineParser, in_range
from mnist3d.export import MESH_FORMATS, VOXEL_FORMATS, export_mesh, export_voxels
from mnist3d.storage.environment import environment


def sculpture(resolution: int) -> np.ndarray:
    """A shell and speckle inside the unit ball: about as much surface as a sculpture has, and as hard to compress."""
    centre = np.linspace(-1.0, 1.0, resolution, dtype=np.float32)
    random = np.random.default_rng(0)
    values = np.zeros((2, *(resolution,) * 3), np.float32)
    for k, z in enumerate(centre):
        radius = np.sqrt(centre[:, None] ** 2 + centre[None, :] ** 2 + z * z)
        noise = random.random(radius.shape, dtype=np.float32)
        values[0, k] = np.where(radius < 1.0, 100.0 * np.abs(np.sin(4.0 * radius)) ** 8 + 0.1 * noise, 0.0)
        values[1, k] = np.where(radius < 1.0, 0.5 + 0.5 * np.sin(9.0 * centre[None, :] + z) * (0.9 + 0.1 * noise), 0.0)
    return values


def megabytes() -> float:
    """The process's peak so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def one(suffix: str, resolution: int) -> dict[str, float | str]:
    """Write one format in this process."""
    is_mesh = suffix in MESH_FORMATS
    with tempfile.TemporaryDirectory() as folder:  # a tiny one first, so that libraries are imported
        warm = np.abs(np.random.default_rng(0).random((2, 8, 8, 8)))
        (export_mesh if is_mesh else export_voxels)(warm, Path(folder) / f"warm{suffix}")
        before = megabytes()
        values = sculpture(resolution)
        made = megabytes()
        path = Path(folder) / f"a{suffix}"
        began, worked = time.perf_counter(), time.process_time()
        if is_mesh:
            export_mesh(values, path)
        else:
            export_voxels(values, path)
        seconds, processor = time.perf_counter() - began, time.process_time() - worked
        size = sum(file.stat().st_size for file in Path(folder).glob(f"a*{suffix}")) / 2**20
    array = values.nbytes / 2**20
    return {
        "format": suffix,
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "array_MiB": array,
        "peak_MiB": round(megabytes() - before, 1),
        "making_the_array_MiB": round(made - before, 1),
        "peak_over_array": round((megabytes() - before) / array, 2),
        "files_MiB": round(size, 1),
    }


def main(arguments: Sequence[str]) -> None:
    """All formats, or one."""
    parser = OneLineParser(prog="export.py", description=__doc__)
    parser.add_argument("--resolution", type=in_range(int, 8, 1024), default=256)
    parser.add_argument("--only", choices=[*VOXEL_FORMATS, *MESH_FORMATS], help="one format, in this process")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    if options.only:
        print(json.dumps(one(options.only, options.resolution)))
        return
    results = []
    for suffix in (*VOXEL_FORMATS, *MESH_FORMATS):
        command = [sys.executable, __file__, "--only", suffix, "--resolution", str(options.resolution)]
        done = subprocess.run(command, capture_output=True, text=True)
        results.append(json.loads(done.stdout) if done.returncode == 0 else {"format": suffix, "error": done.stderr})
        print(results[-1], flush=True)
    if options.output:
        told = {"environment": environment("cpu"), "resolution": options.resolution, "results": results}
        options.output.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    run_command_line(main)
