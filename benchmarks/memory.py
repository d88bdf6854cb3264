"""Peak memory of runs, saves and exports, and what `runs/memory.py` told: python benchmarks/memory.py [--output JSON].

Every line is a process of its own, with one thread. Its memory is its peak less what it held when it was about to
begin: for a run after the imports, for an export before its small volume is made. What it holds alone is without the
pages of files, which any other program may have back; for a run the peak with them stands beside it.
"""

import copy
import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from unittest import mock

import psutil
import torch

from mnist3d.callbacks.checkpoints import Checkpoints
from mnist3d.cli.parser import parse_command_line
from mnist3d.cli.program import run_command_line
from mnist3d.cli.tool_parser import OneLineParser
from mnist3d.data.images import ImageSet
from mnist3d.export import MESH_FORMATS, VOXEL_FORMATS, export_mesh, export_voxels
from mnist3d.export.frames import FrameStyle, orbit_frames
from mnist3d.export.page import page_html
from mnist3d.export.video import write_orbit
from mnist3d.geometry.grids import voxel_centres
from mnist3d.geometry.rotations import turntable
from mnist3d.rendering.pictures import contact_sheet, sheet_views
from mnist3d.rendering.renderer import AbsorptionRenderer, RendererOptions
from mnist3d.runs.checkpoint import load_checkpoint
from mnist3d.runs.memory import FIXED, training_memory
from mnist3d.runs.session import sculpt
from mnist3d.storage.environment import environment
from mnist3d.storage.run_directory import RunDirectory
from mnist3d.training.averaging import Average
from mnist3d.training.finite import each_value
from mnist3d.training.objectives.build import build_objectives
from mnist3d.training.options import TrainerOptions
from mnist3d.training.report import StepReport
from mnist3d.training.trainer import Trainer
from mnist3d.volumes import HashGrid, SparseGrid, Volume, VoxelGrid, load_volume

MIB = 2**20
STEPS = 6  # in which everything is allocated once; the watchdog's snapshots take longer
FEW = "--data.limit 100 --nearest_image.weight 0 --watchdog warn --scorecard.every 0"  # one thing at a time
# What the issue of large volumes asks for; all objectives, as a user would begin.
LARGE = "--scorecard.every 0 --renderer.image_size 128 --volume.resolution {} --trainer.views {}"
FIELD = f"{FEW} --trainer.views 64 --renderer.image_size 64"
RUNS = {
    "the default run": "--scorecard.every 0",
    "smallest": f"{FEW} --volume.resolution 12",
    "grid of 48": f"{FEW} --volume.resolution 48",
    "grid of 96": f"{FEW} --volume.resolution 96",
    "grid of 192": f"{FEW} --volume.resolution 192",
    "grid of 192, slices": f"{FEW} --volume.resolution 192 --renderer.quadrature slices",
    "grid of 96, reference": f"{FEW} --volume.resolution 96 --renderer.impl reference",
    "grid of 96, watchdog": f"{FEW} --volume.resolution 96 --watchdog rewind --trainer.views 4 --trainer.max_steps 280",
    "VMGrid of 192": f"{FEW} --volume VMGrid --volume.resolution 192",
    "HashGrid, 4 views": f"{FEW} --volume HashGrid --trainer.views 4",
    "HashGrid, 40 views": f"{FEW} --volume HashGrid",
    "HashGrid, 80 views, 64 features": (
        f"{FEW} --volume HashGrid --trainer.views 80 --volume.num_levels 16 --volume.features_per_level 4"
    ),
    "HashGrid, views of 64": f"{FEW} --volume HashGrid --renderer.image_size 64",
    "HashGrid baked at 96": f"{FEW} --volume HashGrid --volume.bake_resolution 96",
    "HashGrid, table of 2^20": f"{FEW} --volume HashGrid --volume.log2_hashmap_size 20 --volume.max_resolution 256",
    "TriPlane, 40 views": f"{FEW} --volume TriPlane",
    "TriPlane baked at 96": f"{FEW} --volume TriPlane --volume.bake_resolution 96",
    "FourierMLP, 40 views": f"{FEW} --volume FourierMLP",
    "FourierMLP baked at 96": f"{FEW} --volume FourierMLP --volume.bake_resolution 96",
    "views of 16": f"{FEW} --volume.resolution 12 --renderer.image_size 16",
    "views of 64": f"{FEW} --volume.resolution 12 --renderer.image_size 64",
    "views of 128": f"{FEW} --volume.resolution 12 --renderer.image_size 128",
    "400 views of 64": f"{FEW} --volume.resolution 12 --renderer.image_size 64 --trainer.views 400",
    "wide discriminator": f"{FEW} --volume.resolution 12 --discriminator.channels [256,512,1024]",
    "nearest images of 64": "--volume.resolution 12 --scorecard.every 0 --watchdog warn --renderer.image_size 64",
    "256 views of 128, grid of 128": LARGE.format(128, 256),
    "256 views of 128, grid of 128, 32 at once": LARGE.format(128, 256) + " --trainer.views_at_once 32",
    "64 views of 128, grid of 256": LARGE.format(256, 64),
    "64 views of 128, grid of 256, 16 at once": LARGE.format(256, 64) + " --trainer.views_at_once 16",
    "64 views of 64, grid of 64, reference": FIELD + " --volume.resolution 64 --renderer.impl reference",
    "64 views of 64, grid of 64, reference, 8 at once": (
        FIELD + " --volume.resolution 64 --renderer.impl reference --trainer.views_at_once 8"
    ),
    "HashGrid, 64 views of 64": FIELD + " --volume HashGrid",
    "HashGrid, 64 views of 64, 8 at once": FIELD + " --volume HashGrid --trainer.views_at_once 8",
    "40 views of 128, bfloat16": f"{FEW} --volume.resolution 12 --renderer.image_size 128 --trainer.precision bfloat16",
    "preset hash_grid": "--config hash_grid --scorecard.every 0",
    "preset two_rings": "--config two_rings --scorecard.every 0",
    "preset letters": "--config letters --scorecard.every 0",
}
VOLUMES: dict[str, Callable[[], Volume]] = {"VoxelGrid(48)": lambda: VoxelGrid(48, grow_at=[]), "HashGrid": HashGrid}
RESOLUTIONS = (256, 384)
SAVES = ("256", "512")  # of a grid without coarser levels
# A step on 8 views of 128 of a knot of a tube .16 thick at 256^3; the last with glibc told to give back what is freed.
STEPS_ON_A_KNOT: dict[str, dict[str, str]] = {
    "VoxelGrid, knot": {},
    "SparseGrid, knot": {},
    "SparseGrid, knot, returned": {"MALLOC_MMAP_THRESHOLD_": "500000"},
}


def held() -> float:
    """MiB that this process alone holds now, on Linux: without the pages of files, which any other may have back."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 2**10


class Peak:
    """What `held` is at most in a block, looked at a thousand times a second, beyond what it was before."""

    def __enter__(self) -> "Peak":
        self.before = self.most = held()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    @property
    def mib(self) -> float:
        """MiB."""
        return self.most - self.before

    def _look(self) -> None:
        while not self.over.wait(0.001):
            self.most = max(self.most, held())


def timed(seconds: list[float]) -> Callable[[Trainer], StepReport]:
    """A trainer's step that notes what it took of a core; the first compiles."""
    step = Trainer.step

    def made(trainer: Trainer) -> StepReport:
        begun = time.process_time()
        report = step(trainer)
        seconds.append(time.process_time() - begun)
        return report

    return made


def run(name: str) -> dict[str, float | str]:
    """One run of a few steps in this process, and what was told of it."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["--run_dir", f"{folder}/run", "--viewer.enabled", "false", "--trainer.max_steps", str(STEPS)]
        command = parse_command_line([*given, *RUNS[name].split()])
        before = psutil.Process().memory_info().rss / MIB
        seconds: list[float] = []
        told = (FIXED + sum(training_memory(command.config, torch.device("cpu")).values())) / MIB
        with mock.patch.object(Trainer, "step", timed(seconds)), Peak() as peak:
            sculpt(command)
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before
    figures = {"MiB": round(whole), "alone_MiB": round(peak.mib), "told_MiB": round(told)}
    step = round(sorted(seconds[1:])[len(seconds[1:]) // 2], 2)
    return {
        "run": name,
        "flags": RUNS[name],
        **figures,
        "core_seconds_a_step": step,
        "told_over_measured": round(told / whole, 2),
    }


def trainer_of(resolution: int) -> Trainer:
    """One of a grid, as it is after some steps: with the optimiser's moments."""
    torch.manual_seed(0)
    volume = VoxelGrid(resolution, pyramid=[], grow_at=[])
    images = ImageSet(torch.rand(4, 1, 16, 16), None, ["image"])
    made = Trainer(volume, AbsorptionRenderer(16), images, build_objectives(images), options=TrainerOptions(100))
    for weight in volume.parameters():
        weight.grad = torch.zeros_like(weight)
    made.volume_optimiser.step()
    made.volume_optimiser.zero_grad(set_to_none=True)
    return made


def save_and_resume(resolution: str) -> dict[str, float | str]:
    """A save of a large state and its resume, in MiB that the process held beyond what the trainer holds itself."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        trainer, run = trainer_of(int(resolution)), RunDirectory(folder)
        state = sum(value.nbytes for _, value in each_value(trainer.state_dict()) if isinstance(value, torch.Tensor))
        saver = Checkpoints(run)
        saver.begin(trainer)
        begun = time.monotonic()
        with Peak() as saving:
            saver._save(trainer)
            waited = time.monotonic() - begun
            saver.end_saving()
        took = time.monotonic() - begun
        trainer.volume_optimiser = trainer._volume_adam()  # as one that has only just been built
        with Peak() as loading:
            load_checkpoint(trainer, run)
    figures = {"state_MiB": round(state / MIB), "save_MiB": round(saving.mib), "resume_MiB": round(loading.mib)}
    return {"save": resolution, **figures, "training_waits_s": round(waited, 2), "on_disk_after_s": round(took, 2)}


def knot() -> torch.Tensor:
    """(2, 64, 64, 64): a trefoil, opaque and bright."""
    angle = torch.linspace(0.0, 2.0 * torch.pi, 256)
    x, y = (0.22 * (wave(angle) - sign * 2.0 * wave(2.0 * angle)) for wave, sign in ((torch.sin, -1), (torch.cos, 1)))
    curve = torch.stack([x, y, -0.3 * torch.sin(3.0 * angle)], dim=-1)
    axis = voxel_centres(64).float()
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    distance = torch.cdist(torch.stack([x, y, z], dim=-1).reshape(-1, 3), curve).amin(dim=1).reshape(64, 64, 64)
    return torch.stack([60.0 * (distance < 0.08), torch.full_like(distance, 0.1)])


def write_knot(kind: str, path: str) -> None:
    """A volume file of it."""
    volume = SparseGrid(256) if kind == "SparseGrid" else VoxelGrid(256)
    volume.take_voxels(knot())
    volume.save(path)


def step_on_knot(name: str) -> dict[str, float | str]:
    """A `step_on_file` of a knot."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = f"{folder}/knot.safetensors"
        made = multiprocessing.get_context("spawn").Process(target=write_knot, args=(name.split(",")[0], path))
        made.start()
        made.join()
        return {**step_on_file(path), "step": name}


def step_on_file(path: str) -> dict[str, float | str]:
    """Two steps without a discriminator: views and their gradients, Adam, the average."""
    rotations, renderer = turntable(8), AbsorptionRenderer(128)

    def steps(volume: Volume, count: int) -> None:
        average = copy.deepcopy(volume).requires_grad_(False)
        adam, following = torch.optim.Adam(volume.parameters(), fused=True), Average(average, volume)
        for _ in range(count):
            renderer(volume, rotations).square().sum().backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
            following.follow(0.9)

    with open(path, "rb") as file:  # as little as can be is loaded before
        of_blocks = b"SparseGrid" in file.read(2**16)
    steps(SparseGrid(16) if of_blocks else VoxelGrid(16, grow_at=[]), 1)  # so that its libraries are there
    with Peak() as peak:
        volume = load_volume(path)
        steps(volume, 2)
    filled = len(volume.places) / math.prod(volume.slots.shape) if isinstance(volume, SparseGrid) else 1.0
    return {"step": path, "MiB": round(peak.mib), "share_of_the_blocks": round(filled, 3)}


def exports() -> dict[str, Callable[[Path], object]]:
    """Name -> what is called with a folder."""
    found: dict[str, Callable[[Path], object]] = {}
    for kind, build in VOLUMES.items():
        formats = VOXEL_FORMATS if kind != "HashGrid" else [".npz"]  # its voxels are written as those of a grid
        for resolution in RESOLUTIONS:
            for suffix in formats:
                if suffix != ".vox" or resolution <= 256:
                    found[f"{kind} voxels {resolution} {suffix}"] = _voxels(build, suffix, resolution)
        found[f"{kind} mesh 256 .stl"] = _mesh(build, 256)
        found[f"{kind} page 256"] = lambda folder, build=build: page_html(build(), RendererOptions(), "", 256)
        for suffix in (".mp4", ".gif", ".apng", ".png", "") if formats is VOXEL_FORMATS else (".mp4",):
            found[f"{kind} orbit 120 of 512 {suffix}"] = _orbit(build, suffix)
        found[f"{kind} snapshot of 512"] = lambda folder, build=build: contact_sheet(
            sheet_views(build(), AbsorptionRenderer(512)), 8
        )
    return found


def _voxels(build: Callable[[], Volume], suffix: str, resolution: int) -> Callable[[Path], object]:
    return lambda folder: export_voxels(build(), folder / f"a{suffix}", resolution=resolution)


def _mesh(build: Callable[[], Volume], resolution: int) -> Callable[[Path], object]:
    return lambda folder: export_mesh(build(), folder / f"a{next(iter(MESH_FORMATS))}", resolution=resolution)


def _orbit(build: Callable[[], Volume], suffix: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        frames = orbit_frames(build(), AbsorptionRenderer(), turntable(120), FrameStyle(512))
        write_orbit(folder / f"a{suffix}", frames, 24)

    return write


def export(name: str) -> dict[str, float | str]:
    """One export in this process; a small one of its kind first, so that its libraries are there."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        small.mkdir()
        large.mkdir()
        suffix = name.rpartition(" ")[2]
        if " voxels " in name:
            export_voxels(VoxelGrid(8), small / f"a{suffix}")
        elif " mesh " in name:
            export_mesh(VoxelGrid(8), small / "a.stl")
        elif " orbit " in name:
            frames = orbit_frames(VoxelGrid(8), AbsorptionRenderer(), turntable(2), FrameStyle(16))
            write_orbit(small / f"a{suffix if '.' in suffix else ''}", frames, 24)
        with Peak() as peak:
            exports()[name](large)
    return {"export": name, "MiB": round(peak.mib)}


def main(arguments: Sequence[str]) -> None:
    """All lines, or one."""
    parser = OneLineParser(prog="memory.py", description="Peak memory of runs and exports.")
    parser.add_argument("--only", choices=("runs", "saves", "steps", "exports"), help="default all")
    parser.add_argument("--line", help="one line, in this process")
    parser.add_argument("--step_on", help="a volume file: the step on it, in this process")
    parser.add_argument("--output", type=Path, help="JSON file; default none")
    options = parser.parse_args(arguments)
    if options.step_on is not None:
        print(json.dumps(step_on_file(options.step_on)))
        return
    if options.line is not None:
        of_a_line = {**dict.fromkeys(RUNS, run), **dict.fromkeys(SAVES, save_and_resume)}
        measure = {**of_a_line, **dict.fromkeys(STEPS_ON_A_KNOT, step_on_knot)}.get(options.line, export)
        print(json.dumps(measure(options.line)))
        return
    kinds: dict[str, Iterable[str]] = {"runs": RUNS, "saves": SAVES, "steps": STEPS_ON_A_KNOT, "exports": exports()}
    names = [name for kind, lines in kinds.items() if options.only in (None, kind) for name in lines]
    results = []
    for name in names:
        command = [sys.executable, __file__, "--line", name]
        own = {"OMP_NUM_THREADS": "1", **STEPS_ON_A_KNOT.get(name, {})}
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own}, check=False)
        results.append(json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"error": done.stderr})
        print(results[-1], flush=True)
    if options.output:
        told = {"environment": environment("cpu"), "results": results}
        options.output.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    run_command_line(main)
