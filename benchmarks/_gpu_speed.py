"""The stage of `gpu.py` about speed: launches and waits of a step, steps a second, renderers, memory."""

import gc
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _gpu_report import Report, Setup
from launches import MAX_STEPS, SHARE
from renderer import SETTINGS, TINY, Setting, scene
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mnist3d.cli.parser import parse_command_line
from mnist3d.kernels.absorption import render_grid
from mnist3d.kernels.choice import TOLERANCES, seconds
from mnist3d.kernels.hash_encoding import tinycudann_obstacle
from mnist3d.runs.building import build_trainer
from mnist3d.training.objectives.adversarial import PENALTY_EVERY
from mnist3d.training.trainer import Trainer

GPU_SETTINGS = SETTINGS | {"256 views of 128^2, grid of 256^3": Setting(256, 128, 256, 256)}
ROUNDS, SMALL_ROUNDS = 12, 2
LONGEST = 6.0  # seconds that the rounds of one variant may take
MOST_WAITS = 2.0  # a step: the aim, and what tests/test_launches.py allows
HASH_GRID = ("--config", "hash_grid_gpu", "--volume.implementation")
TRAINERS = {
    "default": (),
    "hash grid, torch": (*HASH_GRID, "torch"),
    "hash grid, tinycudann half": (*HASH_GRID, "tinycudann"),
    "hash grid, tinycudann full": (*HASH_GRID, "tinycudann", "--volume.full_precision", "true"),
}
FEW = ("--data.limit", "100", "--trainer.views", "4")
SMALLER = {
    "default": (*FEW, "--volume.resolution", "8"),
    "hash grid, torch": (*FEW, "--renderer.samples_per_ray", "8", "--volume.log2_hashmap_size", "8"),
}
RUNTIME = ("cudaLaunchKernel", "cuLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "cudaGraphLaunch")


def speed(report: Report, setup: Setup) -> None:
    """Of steps in the middle of a run, and of renderers forward and backward."""
    obstacle = tinycudann_obstacle()
    for name, flags in TRAINERS.items():
        if "tinycudann" in name and obstacle:
            if setup.on_gpu:
                report.remark(f"{name}: left out, as {obstacle}")
            else:
                report.skip_on_cpu(name)
            continue
        with report.part(name):
            _steps(name, (*flags, *(SMALLER[name] if setup.small else ())), report, setup)
    for label, setting in ({"tiny": TINY} if setup.small else GPU_SETTINGS).items():
        with report.part(label):
            _renderers(label, setting, report, setup)


def _steps(name: str, flags: tuple[str, ...], report: Report, setup: Setup) -> None:
    trainer = trainer_at_work(flags, setup.device)

    def cycle() -> None:
        for _ in range(PENALTY_EVERY):
            trainer.step()

    cycle()  # compiles, and makes what is made once
    _forget_peak(setup)
    times = timed(cycle, setup)
    report.figure(f"{name}, steps/s", round(PENALTY_EVERY / median(times), 2))
    _peak(f"{name}, peak MiB", report, setup)
    counts = launches(cycle, setup)
    report.figure(f"{name}, launches of a step", {key: value / PENALTY_EVERY for key, value in counts.items()})
    if not setup.on_gpu:
        report.skip_on_cpu(f"{name}, waits of a step")
        return
    if not counts["kernels"]:
        report.remark(f"{name}: the profiler saw no kernel; CUPTI may be missing or forbidden here")
    places = waits(cycle)
    report.figure(f"{name}, waits of {PENALTY_EVERY} steps", dict(places))
    each = sum(places.values()) / PENALTY_EVERY
    report.check(f"{name}, waits of a step", each <= MOST_WAITS, f"{each:g}, allowed {MOST_WAITS:g}")


def trainer_at_work(flags: tuple[str, ...], device: str) -> Trainer:
    """A trainer in the middle of its run, when every term of the loss is at work."""
    config = parse_command_line([*flags, "--device", device]).config
    config.trainer.max_steps = MAX_STEPS
    trainer = build_trainer(config)
    trainer.steps_done = round(SHARE * MAX_STEPS)
    trainer._grow(SHARE)
    return trainer


def timed(step: Callable[[], object], setup: Setup) -> list[float]:
    """Seconds of a step, several times; it has been run before."""
    found: list[float] = []
    while len(found) < (SMALL_ROUNDS if setup.small else ROUNDS) and (len(found) < 2 or sum(found) < LONGEST):
        found.append(seconds(step, torch.device(setup.device)))
    return found


def launches(step: Callable[[], object], setup: Setup) -> dict[str, int]:
    """What the profiler sees of a step: on a GPU kernels, copies, launches and waits; on a CPU the operators."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setup.on_gpu else [])]
    with profile(activities=activities) as seen:
        step()
        if setup.on_gpu:
            torch.cuda.synchronize()
    counts = Counter[str]()
    for event in seen.events() or ():
        if event.device_type.name == "CUDA":
            if not getattr(event, "is_user_annotation", False):  # the optimisers name their steps there too
                counts["copies" if event.name.startswith(("Memcpy", "Memset")) else "kernels"] += 1
        elif event.name in RUNTIME:
            counts["launches"] += 1
        elif "Synchronize" in event.name:
            counts["synchronising calls, one of the measurement"] += 1
        elif event.name.startswith("aten::"):
            counts["operators, those within others too"] += 1
    return {"kernels": 0, **counts} if setup.on_gpu else dict(counts)


def waits(step: Callable[[], object]) -> Counter[str]:
    """Where the host waited for the GPU in a step, and how often, as torch warns of it."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(f"{Path(w.filename).name}:{w.lineno}" for w in said if "synchroniz" in str(w.message))


def _renderers(label: str, setting: Setting, report: Report, setup: Setup) -> None:
    """The reference and the fast kernel: seconds and memory forward and backward, and whether they agree."""
    fast = "triton" if setup.on_gpu else "numba"
    grids, absorbance, rotation = (each.detach().to(setup.device) for each in scene(setting))
    inputs = grids.requires_grad_(), absorbance.requires_grad_(), rotation
    exact = None
    if setting in (SETTINGS["A"], TINY):
        double = grids.detach().double(), absorbance.detach().double(), rotation.double()
        exact = answers((double[0].requires_grad_(), double[1].requires_grad_(), double[2]), setting, "reference")
    rates, found = {}, {}
    for impl in ("reference", fast):
        for at_once in (setting.views, 1):
            name = impl if at_once > 1 else f"{impl}, a view at a time"
            try:
                found[impl] = answers(inputs, setting, impl, at_once)
                _forget_peak(setup)
                times = timed(lambda impl=impl, once=at_once: answers(inputs, setting, impl, once), setup)
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
                report.remark(f"{label}: {name} does not fit into the memory")
                continue
            rates[name] = round(1e3 * median(times), 3)
            _peak(f"{label}, {name}, peak MiB", report, setup)
            break
    report.figure(f"{label}, ms", rates)
    if len(found) == 2:
        allowed = TOLERANCES[torch.float32] if exact else None
        _compare(f"{label}, {fast}", found[fast], exact or found["reference"], allowed, report)
    if not setup.on_gpu:
        report.skip_on_cpu(f"{label}, triton and its memory")


def answers(
    inputs: tuple[Tensor, Tensor, Tensor], setting: Setting, impl: str, at_once: int | None = None
) -> list[Tensor]:
    """The views, and the gradients of their weighted sum to both channels; backward after each part of the views."""
    grids, absorbance, rotation = inputs
    grids.grad = absorbance.grad = None
    views = []
    for part in rotation.split(at_once or setting.views):
        view = render_grid(grids, absorbance, part, setting.image_size, setting.num_samples, impl=impl)
        # of both signs, and the same however the views are parted
        weights = torch.linspace(-1.0, 1.0, view[0].numel(), dtype=view.dtype, device=view.device)
        view.backward(weights.view_as(view[0]).expand_as(view))
        views.append(view.detach())
    assert grids.grad is not None
    assert absorbance.grad is not None
    return [torch.cat(views), grids.grad, absorbance.grad]


def _compare(name: str, found: list[Tensor], truth: list[Tensor], allowed: Any, report: Report) -> None:
    """Image absolute, gradients relative to the largest element; with a tolerance it is a check."""
    off = [(ours.to(theirs) - theirs).abs().max().item() for ours, theirs in zip(found, truth, strict=True)]
    off[1:] = [each / theirs.abs().max().item() for each, theirs in zip(off[1:], truth[1:], strict=True)]
    against = "the reference in double precision" if allowed else "the reference, which rounds too"
    report.figure(f"{name}, off from {against} (image, gradients)", off)
    image, gradient = (allowed.value, allowed.gradient) if allowed else (1e-3, 1e-2)
    report.check(f"{name}, agrees with {against}", off[0] <= image and max(off[1:]) <= gradient, f"{max(off):.2g}")


def _forget_peak(setup: Setup) -> None:
    gc.collect()  # what the variant before has left in circles
    if setup.on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def _peak(name: str, report: Report, setup: Setup) -> None:
    if setup.on_gpu:
        report.figure(name, round(torch.cuda.max_memory_allocated() / 2**20, 1))
