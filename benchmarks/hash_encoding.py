"""Speed of the hash encoding and of the HashGrid preset, on the CPU: numba against plain PyTorch, baked against dense.

    python benchmarks/hash_encoding.py --output benchmarks/results/hash_encoding.json

Two tables. First the encoding alone (8 levels, 2 features, 2^14 entries; 2^16 points), forward and backward to the
table. Then 40 views of 28^2 with the gradient to all parameters, which is the renderer's share of a
training step: a dense grid of 48^3, the field baked at 48^3 with numba and with PyTorch, and with --rays (minutes) the
field asked along 64 samples a ray. All variants take turns in one process, so trust the ratios (median over the rounds
of one variant's time through another's in the same round) rather than the times.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from renderer import interleaved, machine

from mnist3d.geometry.rotations import sample_rotations
from mnist3d.kernels.hash_encoding import HashLevels, hash_encode
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes import Volume
from mnist3d.volumes.hash_grid import HashGrid
from mnist3d.volumes.voxel_grid import VoxelGrid

LEVELS = HashLevels(8, 2, 14, 4, 16 ** (1 / 7))  # of HashGrid's defaults: 4 to 64
POINTS = 2**16
VIEWS = 40

Job = Callable[[], tuple[float, float]]


def encoding_job(impl: str) -> Job:
    """Seconds of the forward and of the backward pass."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(POINTS, 3, generator=generator)
    table = torch.randn(LEVELS.entries, LEVELS.features_per_level, generator=generator).requires_grad_()
    upstream = torch.randn(POINTS, LEVELS.width, generator=generator)

    def job() -> tuple[float, float]:
        table.grad = None
        start = time.perf_counter()
        encoded = hash_encode(points, table, LEVELS, impl)
        middle = time.perf_counter()
        encoded.backward(upstream)
        return middle - start, time.perf_counter() - middle

    return job


def view_job(volume: Volume) -> Job:
    """Seconds of the forward and of the backward pass through renderer and volume."""
    renderer, rotation = AbsorptionRenderer(28), sample_rotations(VIEWS, torch.Generator().manual_seed(0))

    def job() -> tuple[float, float]:
        volume.zero_grad(set_to_none=True)
        start = time.perf_counter()
        image = renderer(volume, rotation)
        middle = time.perf_counter()
        image.backward(torch.ones_like(image))
        return middle - start, time.perf_counter() - middle

    return job


def measure(jobs: dict[str, Job], slowest: str, rounds: int) -> dict[str, dict[str, object]]:
    """Times of each, and how many times faster than `slowest`."""
    times = interleaved(jobs, rounds)
    totals = {name: [forward + backward for forward, backward in each] for name, each in times.items()}
    ratios = {name: [a / b for a, b in zip(totals[slowest], each, strict=True)] for name, each in totals.items()}
    return {
        name: {
            "median_ms": 1e3 * median(totals[name]),
            "forward_ms": 1e3 * median(forward for forward, _ in each),
            "backward_ms": 1e3 * median(backward for _, backward in each),
            f"ratio_to_{slowest}": median(ratios[name]),
            "times_ms": [1e3 * value for value in totals[name]],
        }
        for name, each in times.items()
    }


def show(title: str, found: dict[str, dict[str, object]]) -> None:
    print(f"\n{title}")
    for name, row in found.items():
        numbers = "  ".join(f"{key} {value:9.2f}" for key, value in row.items() if isinstance(value, float))
        print(f"{name:24} {numbers}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--rounds", type=int, default=9, help="times every variant is run (default 9)")
    parser.add_argument("--rays", action="store_true", help="the field along rays too, which takes minutes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    encoding = measure({impl: encoding_job(impl) for impl in ("torch", "numba")}, "torch", options.rounds)
    show(f"encoding, {POINTS} points", encoding)
    volumes: dict[str, Volume] = {
        "dense": VoxelGrid(),
        "baked, numba": HashGrid(bake_resolution=48, implementation="numba"),
        "baked, torch": HashGrid(bake_resolution=48, implementation="torch"),
    }
    if options.rays:
        volumes["rays, numba"] = HashGrid(implementation="numba")
    views = measure({name: view_job(volume) for name, volume in volumes.items()}, "dense", options.rounds)
    show(f"{VIEWS} views of 28^2", views)
    if options.output:
        report = {"machine": machine(options.threads), "rounds": options.rounds, "points": POINTS, "views": VIEWS}
        options.output.write_text(json.dumps({**report, "encoding": encoding, "pictures": views}, indent=1) + "\n")


if __name__ == "__main__":
    main()
