"""Known views, one loop, every backend: how well held-out views agree after the same processor time.

    python benchmarks/known_views.py --output FILE              all, half an hour on one core
    python benchmarks/known_views.py --output FILE --only HashGrid --seconds 10
    python benchmarks/known_views.py --table FILE               the table

Line integrals of the head and of the chair of benchmarks/reconstruction.py, 300 of 32 x 32 from all directions, 270 to
learn from. Each backend has its default arguments, but for the grid, which has 32^3 voxels, and for "baked at 32"
(`--volume.bake_resolution 32`). "plain PyTorch" is that grid by `grid_sample` along the rays, without a kernel of
mnist3d. The number of steps is what fits into the time, by the time of the first ones; the learning rate falls over
them.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from reconstruction import OBJECTS, SIZE, in_the_ball
from torch import Generator, Tensor, nn

from mnist3d.cli.reconstruct_ways import BATCH, built
from mnist3d.reconstruction.known_views import fit_known
from mnist3d.reconstruction.simulation import Simulated, simulate
from mnist3d.volumes import OWN_VOLUMES, Volume

VIEWS = 300
SECONDS = [10.0, 60.0]
SHOWN = ["brain", "chair"]
NAMES = ["plain PyTorch", *OWN_VOLUMES, *(f"{name}, baked at 32" for name in ("HashGrid", "TriPlane", "FourierMLP"))]
FIRST = 4  # steps that load what is loaded once
ENOUGH = 2.0  # seconds, at least, of the steps whose time is measured


class PlainGrid(Volume):
    """Attenuation on a grid, by torch alone.

    Args:
        resolution: voxels along each edge.
    """

    def __init__(self, resolution: int = SIZE) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.full((1, 1, *(resolution,) * 3), -4.0))
        self.step = 2.0 / resolution

    def forward(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """Trilinear, as attenuation per world unit."""
        grid = F.softplus(self.raw) / self.step
        found = F.grid_sample(grid, points.reshape(1, 1, 1, -1, 3), align_corners=False, padding_mode="border")
        return found.reshape(points.shape[:-1]), torch.zeros(points.shape[:-1])


def volume_of(name: str) -> Volume:
    """A fresh one."""
    name, _, baked = name.partition(", baked at ")
    given = {"bake_resolution": int(baked)} if baked else {}
    return PlainGrid() if name == "plain PyTorch" else built(OWN_VOLUMES[name], SIZE, given)


def fitted(name: str, data: Simulated, steps: int) -> tuple[float, float]:
    """PSNR of held-out views, dB, and the processor time."""
    volume, began = volume_of(name), time.process_time()
    found = fit_known(
        volume,
        data.lines,
        data.poses.rotations,
        arbitrary=True,
        steps=steps,
        batch=BATCH,
        generator=Generator().manual_seed(0),
    )
    return found.psnr, time.process_time() - began


def measured(name: str, object_: str, seconds: float) -> dict[str, object]:
    """A line of the results."""
    data = simulate(in_the_ball(OBJECTS[object_]()), views=VIEWS, size=SIZE, generator=Generator().manual_seed(0))
    fitted(name, data, FIRST)
    count, took = FIRST, 0.0
    while took < ENOUGH:
        count *= 4 if took else 1
        _, took = fitted(name, data, count)
    steps = max(1, int(seconds * count / took))
    psnr, took = fitted(name, data, steps)
    return {"volume": name, "object": object_, "budget": seconds, "steps": steps, "psnr": psnr, "cpu_seconds": took}


def table(lines: list[dict[str, Any]]) -> str:
    """In Markdown, a row a backend; steps a second are those of its first cell."""
    cells = [(object_, seconds) for object_ in SHOWN for seconds in SECONDS]
    rows = [
        "| volume | " + " | ".join(f"{object_}, {seconds:.0f} s" for object_, seconds in cells) + " | steps a second |",
        "|---|" + "---|" * (len(cells) + 1),
    ]
    for name in dict.fromkeys(line["volume"] for line in lines):
        own = {(line["object"], line["budget"]): line for line in lines if line["volume"] == name}
        found = [f"{own[cell]['psnr']:.1f}" if cell in own else "-" for cell in cells]
        pace = next(line["steps"] / line["cpu_seconds"] for cell in cells if (line := own.get(cell)))
        rows.append(f"| {name} | {' | '.join(found)} | {pace:.3g} |")
    return "\n".join(rows)


def main() -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file of results, a line of JSON each; is added to")
    parser.add_argument("--table", type=Path, help="print the table of such a file")
    parser.add_argument("--only", nargs="*", help="volumes; default all")
    parser.add_argument("--seconds", nargs="*", type=float, default=SECONDS, help="of processor time")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.table or options.output
    done = [json.loads(line) for line in path.read_text().splitlines()] if path and path.is_file() else []
    if options.table:
        print(table(done))
        return
    known = {(line["volume"], line["object"], line["budget"]) for line in done}
    for seconds in options.seconds:
        for object_ in SHOWN:
            for name in options.only or NAMES:
                if (name, object_, seconds) in known:
                    continue
                line = measured(name, object_, seconds)
                print(line, flush=True)
                if options.output:
                    with open(options.output, "a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
