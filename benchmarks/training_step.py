"""Speed and memory of whole training steps with each kernel, and what a step's time goes into, on the CPU.

    python benchmarks/training_step.py --output training_step.json

Each variant is the trainer of the default recipe with another kernel in its renderer. All are warmed up, then
take turns in one process, one cycle of the gradient penalty (four steps) at a time, so that
a busy machine slows all alike: trust the ratios (median over the rounds of the reference's time through the
variant's in the same round), not the milliseconds. The steps are those in the middle of a run (`SHARE`),
where every term of the loss is at work. Peak memory is measured in a process of its own a variant, and is the whole
process': Python, torch, numba, the data and what start-up has left behind are most of it.

Written: one JSON with metadata, the recipe, every time measured and the summaries that the table shows.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch
from renderer import _resident, machine
from torch import Tensor

from mnist3d.rendering.renderer import ImplementationName, QuadratureName
from mnist3d.runs.building import build_trainer
from mnist3d.runs.config import Config
from mnist3d.training.objectives.adversarial import PENALTY_EVERY, Adversarial
from mnist3d.training.trainer import Trainer

SHARE = 0.65  # of the run that is done: past `nearest_image.start`, before the rates have fallen far
MAX_STEPS = 10_000  # any run so long that the steps measured here do not move the progress
REQUIRED_RATIO = 2.3  # of the default kernel to the reference, whole steps
ALLOWED_SHARE = 0.45  # of the default kernel's renderer in its step


class Variant(NamedTuple):
    """Which kernel renders."""

    quadrature: QuadratureName
    impl: ImplementationName


VARIANTS = {
    "reference": Variant("trilinear", "reference"),
    "numba": Variant("trilinear", "numba"),
    "numba, slices": Variant("slices", "numba"),
}
REFERENCE, REQUIRED = "reference", "numba"
PARTS: tuple[str, ...] = ("renderer", "discriminator", "optimisers", "rest")


class Clock:
    """Seconds of each part of a trainer's steps, by timers around what the trainer calls.

    The renderer is its forward pass, the volume's grid included, and what a backward pass does from the moment
    the gradient of the views is known. The discriminator is its forward passes and all other backward work.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._views_known: float | None = None
        trainer.renderer.forward = self._timed("renderer", trainer.renderer.forward, self._watch)
        adversarial = trainer.objectives["adversarial"]
        assert isinstance(adversarial, Adversarial)
        network = adversarial.discriminator
        network.forward = self._timed("discriminator", network.forward)
        for optimiser in (trainer.volume_optimiser, adversarial.optimiser):
            optimiser.step = self._timed("optimisers", optimiser.step)

    def _timed(
        self, part: str, function: Callable[..., Any], then: Callable[[Any], None] | None = None
    ) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments, **options)
            self.seconds[part] += time.perf_counter() - start
            if then is not None:
                then(result)
            return result

        return timed

    def _watch(self, views: Tensor) -> None:
        if views.requires_grad:
            views.register_hook(self._mark)

    def _mark(self, gradient: Tensor) -> None:
        self._views_known = time.perf_counter()

    @contextmanager
    def backward_passes(self) -> Iterator[None]:
        """Also times `Tensor.backward` and `torch.autograd.grad`, as long as it lasts."""

        def timed(function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **options: Any) -> Any:
                self._views_known, start = None, time.perf_counter()
                result = function(*arguments, **options)
                end = time.perf_counter()
                known = end if self._views_known is None else self._views_known
                self.seconds["discriminator"] += known - start
                self.seconds["renderer"] += end - known
                return result

            return run

        backward, grad = Tensor.backward, torch.autograd.grad
        Tensor.backward, torch.autograd.grad = timed(backward), timed(grad)
        try:
            yield
        finally:
            Tensor.backward, torch.autograd.grad = backward, grad


def build(variant: Variant, tiny: bool = False) -> Trainer:
    """The default recipe's trainer with this kernel, in the middle of its run; tiny: two views of a small grid."""
    config = Config(device="cpu")
    if tiny:
        config.trainer.views, config.volume["init_args"] = 2, {"resolution": 8}
    config.trainer.max_steps = MAX_STEPS
    config.renderer.quadrature, config.renderer.impl = variant
    trainer = build_trainer(config)
    trainer.steps_done = round(SHARE * MAX_STEPS)
    trainer._grow(SHARE)  # before the clock is set, which knows the optimisers of now
    return trainer


class Job:
    """One variant and what was measured of it."""

    def __init__(self, variant: Variant) -> None:
        self.trainer = build(variant)
        self.clock = Clock(self.trainer)
        self.rounds: list[dict[str, float]] = []

    def run(self) -> None:
        """One cycle of the penalty: milliseconds a step, whole and in parts."""
        steps = PENALTY_EVERY
        self.clock.seconds = dict.fromkeys(PARTS, 0.0)
        start = time.perf_counter()
        with self.clock.backward_passes():
            for _ in range(steps):
                self.trainer.step()
        total = time.perf_counter() - start
        parts = self.clock.seconds
        parts["rest"] = total - sum(parts.values())
        self.rounds.append({name: 1e3 * value / steps for name, value in {"step": total, **parts}.items()})


def summarise(jobs: dict[str, Job]) -> dict[str, dict[str, Any]]:
    base = [each["step"] for each in jobs[REFERENCE].rounds]
    summary = {}
    for name, job in jobs.items():
        steps = [each["step"] for each in job.rounds]
        low, _, high = quantiles(steps, n=4)
        summary[name] = {
            "median_ms": median(steps),
            "quartiles_ms": [low, high],
            "ratio_to_reference": median(theirs / ours for theirs, ours in zip(base, steps, strict=True)),
            "renderer_share": median(each["renderer"] / each["step"] for each in job.rounds),
            "parts_ms": {part: median(each[part] for each in job.rounds) for part in PARTS},
            "rounds_ms": job.rounds,
        }
    return summary


def peak(variant: Variant) -> int:
    """Bytes of the resident set at its peak in a cycle of steps."""
    build(variant, tiny=True).step()  # imports, compilation
    trainer = build(variant)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    for _ in range(PENALTY_EVERY):
        trainer.step()
    return _resident("VmHWM")


def measure_peaks(threads: int) -> dict[str, float]:
    """MiB for each variant, each in a fresh process."""
    found = {}
    for name in VARIANTS:
        command = [sys.executable, __file__, "--peak-of", name, "--threads", str(threads)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = int(result.stdout) / 2**20
    return found


def show(summary: dict[str, dict[str, Any]], peaks: dict[str, float]) -> None:
    print(
        f"{'kernel':16} {'ms a step':>9} {'quartiles':>15} {'ratio':>6} {'renderer':>9}   "
        + " ".join(f"{part + ' ms':>16}" for part in PARTS)
        + f" {'peak MiB':>9}"
    )
    for name, row in summary.items():
        low, high = row["quartiles_ms"]
        print(
            f"{name:16} {row['median_ms']:9.1f} {low:7.1f}-{high:7.1f} {row['ratio_to_reference']:6.2f} "
            f"{100 * row['renderer_share']:7.1f} %   "
            + " ".join(f"{row['parts_ms'][part]:16.1f}" for part in PARTS)
            + f" {peaks.get(name, float('nan')):9.1f}"
        )
    ratio, share = (summary[REQUIRED][key] for key in ("ratio_to_reference", "renderer_share"))
    fast, small = _said(ratio >= REQUIRED_RATIO), _said(share <= ALLOWED_SHARE)
    print(f"{REQUIRED}: steps {ratio:.2f} times as fast as the reference's ({REQUIRED_RATIO} or more: {fast})")
    print(f"{REQUIRED}: the renderer is {share:.0%} of the step ({ALLOWED_SHARE:.0%} or less: {small})")


def _said(reached: bool) -> str:
    return "reached" if reached else "missed"


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default 1)")
    parser.add_argument("--steps", type=int, default=48, help="steps each variant is timed for (default 48)")
    parser.add_argument("--quick", action="store_true", help="12 steps, no peak memory")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        print(peak(VARIANTS[arguments.peak_of]))
        return
    peaks = {} if arguments.quick else measure_peaks(arguments.threads)
    jobs = {name: Job(variant) for name, variant in VARIANTS.items()}
    cycle = PENALTY_EVERY
    rounds = max(2, (12 if arguments.quick else arguments.steps) // cycle)
    for _ in range(1 + rounds):
        for job in jobs.values():
            job.run()
    for job in jobs.values():
        del job.rounds[0]  # the warm-up
    summary = summarise(jobs)
    show(summary, peaks)
    if arguments.output:
        report = {
            "machine": machine(arguments.threads),
            "recipe": Config().to_yaml(),
            "share_of_the_run": SHARE,
            "steps_a_round": cycle,
            "rounds": rounds,
            "variants": summary,
            "peak_resident_mib": peaks,
        }
        arguments.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
