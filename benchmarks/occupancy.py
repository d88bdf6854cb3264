"""Whether training along rays is faster where empty and hidden samples are skipped, and what that changes.

    python benchmarks/occupancy.py --steps 300 --views 10 --output occupancy.jsonl

The field is the hash grid of configs/hash_grid_gpu.yaml, evaluated along the rays on the CPU. Three ways to sample:

- dense: every sample in the unit ball, as `mnist3d train` does;
- occupancy: only samples in cells of a coarse grid whose attenuation, a decayed maximum as in instant-ngp (Mueller et
  al. 2022, appendix E.2), says that a step there intercepts more than a threshold;
- weights: also not those that the same grid takes for hidden, by the transmittance that its running mean leaves.

The grids are refreshed every few steps at a random point of each cell, all cells of the ball alike, so that empty space
can come back; until the first steps are over, every sample is asked. Runs of one seed take turns step by step in one
process, so that a busy machine slows all alike: trust the ratios. At each mark the views of the trained field are also
rendered with and without skipping: the PSNR between them is the error of what is skipped.

Written: a line of JSON for each mark and seed.
"""

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from mnist3d.cli.parser import parse_command_line
from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions
from mnist3d.evaluation import load_classifiers, score_views
from mnist3d.geometry.rotations import PoseOptions, sample_rotations
from mnist3d.kernels.absorption import ball_quadrature
from mnist3d.rendering.renderer import FIELD_SAMPLES, AbsorptionRenderer
from mnist3d.runs.building import build_trainer
from mnist3d.training.trainer import Trainer
from mnist3d.volumes.base import Field

CELLS = 48  # an edge
EVERY, FIRST = 16, 32  # steps between two refreshes, and before the first sample is skipped
DECAY, MEAN = 0.8, 0.5  # of the maximum at a refresh, and of the running mean
WAYS = {"dense": None, "occupancy": False, "weights": True}


class Cells:
    """What a field is thought to be on a coarse grid.

    Args:
        renderer: says how rays are cut.
        hidden: whether samples behind matter are skipped too.
        threshold: what a sample must give at least to be asked for, share of the light.
    """

    def __init__(self, renderer: AbsorptionRenderer, hidden: bool, threshold: float) -> None:
        samples = renderer.options.samples_per_ray or FIELD_SAMPLES
        _, share = ball_quadrature(renderer.options.image_size, samples)
        self.inside, self.hidden, self.threshold = share > 0, hidden, threshold
        self.length = share[self.inside] * 2.0 / samples
        self.ready = False  # before, nobody knows what to skip
        self.most = torch.zeros((CELLS,) * 3)
        self.mean = torch.zeros((CELLS,) * 3)
        self.generator = torch.Generator().manual_seed(0)
        self.asked = self.offered = 0

    @torch.no_grad()
    def refresh(self, volume: Field) -> None:
        """Ask the field at a random point of each cell that the ball meets."""
        index = torch.cartesian_prod(*[torch.arange(CELLS)] * 3)
        corner = 2.0 * index.flip(-1) / CELLS - 1.0
        points = corner + torch.rand(len(index), 3, generator=self.generator) * 2.0 / CELLS
        met = ((corner + 1.0 / CELLS).norm(dim=-1) < 1.0 + 3.0**0.5 / CELLS).nonzero()[:, 0]
        found = torch.cat([volume(part)[0] for part in points[met].split(2**18)])
        most, mean = self.most.flatten(), self.mean.flatten()
        most[met] = torch.maximum(most[met] * DECAY, found)
        mean[met] = mean[met].lerp(found, 1.0 - MEAN) if self.ready else found
        self.ready = True

    def __call__(self, points: Tensor) -> Tensor:
        """Which points are asked for, (B, P)."""
        k = ((points + 1.0) * (0.5 * CELLS)).long().clamp_(0, CELLS - 1)
        flat = (k[..., 2] * CELLS + k[..., 1]) * CELLS + k[..., 0]
        weight = -torch.expm1(-self.most.flatten()[flat] * self.length)
        if self.hidden:
            depth = points.new_zeros(len(points), *self.inside.shape)
            # half of the mean, as what is hidden by mistake can no longer be seen
            depth[:, self.inside] = 0.5 * self.mean.flatten()[flat] * self.length
            behind = torch.cumsum(depth, dim=-1) - depth
            weight = weight * torch.exp(-behind[:, self.inside])
        kept = weight > self.threshold
        self.asked, self.offered = self.asked + int(kept.sum()), self.offered + kept.numel()
        return kept


class Skipping(Field):
    """A field that is asked only where cells say so, and empty elsewhere."""

    def __init__(self, inner: Field, cells: Cells) -> None:
        self.inner, self.cells = inner, cells

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.cells(points)
        found = torch.stack(self.inner(points[kept]))
        filled = found.new_zeros(2, *kept.shape)
        filled[:, kept] = found
        return filled[0], filled[1]

    def like(self) -> Tensor:
        return self.inner.like()


@dataclass
class Way:
    """One run of its seed."""

    trainer: Trainer
    cells: Cells | None
    first: int
    seconds: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def step(self) -> None:
        """One training step, timed with the refresh that it needs."""
        began, cells, done = time.process_time(), self.cells, self.trainer.steps_done
        if cells is not None and done >= self.first and done % EVERY == 0:
            cells.refresh(self.trainer.volume)
        before = (cells.asked, cells.offered) if cells else (0, 0)
        self.trainer.step()
        self.seconds.append(time.process_time() - began)
        if cells is not None and cells.offered > before[1]:
            self.shares.append((cells.asked - before[0]) / (cells.offered - before[1]))


def build(hidden: bool | None, seed: int, arguments: argparse.Namespace) -> Way:
    """A trainer whose renderer skips, or does not."""
    words = ["--seed", str(seed), "--trainer.max_steps", str(arguments.steps), "--trainer.views", str(arguments.views)]
    words += ["--config", "hash_grid_gpu"] if arguments.start_from is None else ["--volume", "HashGrid"]
    words += [] if arguments.start_from is None else ["--start_from", str(arguments.start_from)]
    trainer = build_trainer(parse_command_line(words).config)
    cells = None if hidden is None else Cells(trainer.renderer, hidden, arguments.threshold)
    if cells is not None:
        whole = trainer.renderer.forward

        def forward(volume: Field, *rest: Any, **options: Any) -> Tensor:
            skips = volume is trainer.volume and cells.ready
            return whole(Skipping(volume, cells) if skips else volume, *rest, **options)

        trainer.renderer.forward = forward
    return Way(trainer, cells, FIRST if arguments.start_from is None else 0)


@torch.no_grad()
def error(way: Way) -> float:
    """PSNR of views that skip against views that do not, dB."""
    if way.cells is None or not way.cells.ready:
        return math.inf
    rotations = sample_rotations(16, torch.Generator().manual_seed(5), PoseOptions("so3"))
    renderer = AbsorptionRenderer(way.trainer.renderer.image_size, way.trainer.renderer.options.samples_per_ray)
    volume = way.trainer.volume
    squared = (renderer(Skipping(volume, way.cells), rotations) - renderer(volume, rotations)).square().mean()
    return -10.0 * math.log10(max(float(squared), 1e-12))


def main() -> None:
    """Train, and write a line at each mark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--marks", type=int, default=6, help="how often a line is written")
    parser.add_argument("--views", type=int, default=10, help="in a step; `mnist3d train` takes 40")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--start_from", help="a HashGrid, as `mnist3d convert` makes it of a run; default from noise")
    parser.add_argument("--threshold", type=float, default=3e-3)
    parser.add_argument("--score", action="store_true", help="also say how legible the views are at the end")
    parser.add_argument("--output", type=Path, default=Path("occupancy.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        ways = {name: build(WAYS[name], seed, arguments) for name in arguments.ways}
        for step in range(1, arguments.steps + 1):
            for way in ways.values():
                way.step()
            if step % max(1, arguments.steps // arguments.marks) == 0:
                write(arguments, seed, step, ways)
        if not arguments.score:
            continue
        size = next(iter(ways.values())).trainer.renderer.options.image_size
        held_out, training = (load_images(DataOptions(), size, part) for part in ("held_out", "training"))
        classifiers = load_classifiers(held_out.images, held_out.labels, held_out.class_names)
        for name, way in ways.items():
            card = score_views(way.trainer.averaged, AbsorptionRenderer(size), classifiers, training.images)
            said = {"seed": seed, "way": name, "legible": card.poses["euler_normal"].legible}
            append(arguments.output, said)


def write(arguments: argparse.Namespace, seed: int, step: int, ways: dict[str, Way]) -> None:
    """A line for each way: since the last mark, and all together."""
    recent = max(1, arguments.steps // arguments.marks)
    base = ways["dense"].seconds if "dense" in ways else None
    for name, way in ways.items():
        part = way.seconds[-recent:]
        ratio = None if base is None else round(sum(base[-recent:]) / sum(part), 3)
        line = {"seed": seed, "step": step, "way": name, "cpu_seconds_a_step": round(median(part), 4)}
        line |= {"times_as_fast_as_dense": ratio, "psnr_of_skipping": round(error(way), 2)}
        line |= {"share_asked": round(sum(way.shares[-recent:]) / max(1, len(way.shares[-recent:])), 3)}
        append(arguments.output, line)


def append(path: Path, line: dict[str, Any]) -> None:
    """A line of JSON, in the file and on the terminal."""
    text = json.dumps({name: None if value == math.inf else value for name, value in line.items()})
    print(text, file=sys.stderr, flush=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(text + "\n")


if __name__ == "__main__":
    main()
