"""How many operators a training step launches on a GPU, and how often the host waits for it; counted without one.

    python benchmarks/launches.py --output launches.json

The default recipe in the middle of its run, on a device that is not there (`far_device.py`), with views of all classes.
Counted is each operator that torch dispatches to the device below autograd, backward passes too, but for views,
allocations and copies between host and device, which are counted apart. Most are one kernel of a GPU; convolutions,
sorting and solving are a few. A wait is an operator before whose end the host cannot go on: a number read, a copy from
memory that is not pinned, a result whose size depends on its values. Means over one cycle of the gradient penalty.

The renderer is counted as the Triton kernel that a GPU has: its packing, one launch forward and one backward.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from far_device import NAME, FarDevice, far_device
from torch import Tensor

from mnist3d.callbacks.watchdog import LOOK_EVERY, Watchdog
from mnist3d.data.nearest import Exemplars
from mnist3d.kernels.absorption import implementations
from mnist3d.kernels.absorption.reference import render_grid_reference
from mnist3d.runs import building
from mnist3d.runs.config import Config
from mnist3d.training.objectives.adversarial import PENALTY_EVERY, Adversarial
from mnist3d.training.trainer import Trainer

SHARE = 0.65  # of the run that is done: every term of the loss is at work
MAX_STEPS = 10_000
PARTS = ("renderer", "discriminator", "objectives", "optimisers", "average", "watchdog")
PINNED_FOR = "mnist3d.geometry.on_device.PINNED_FOR"


def build() -> Trainer:
    """The default recipe's trainer on the device, in the middle of its run; call it inside `far_device`."""
    config = Config()
    config.trainer.max_steps = MAX_STEPS
    with mock.patch.object(building, "build_device", return_value=torch.device(NAME)):
        trainer = building.build_trainer(config)
    trainer.steps_done = round(SHARE * MAX_STEPS)
    trainer._grow(SHARE)
    return trainer


class OneKernel(torch.autograd.Function):
    """The trilinear renderer as an operator of one launch forward, and of two backward with the zeros for it."""

    @staticmethod
    def forward(ctx: Any, device: FarDevice, cells: Tensor, rotation: Tensor, size: int, samples: int) -> Tensor:
        device.operators[device.part, "draw"] += 1
        device.counting = False
        with torch.enable_grad():
            ctx.device, ctx.cells = device, cells.detach().requires_grad_()
            opacity, absorbance = ctx.cells[1:-1, 1:-1, 1:-1].unbind(-1)
            ctx.image = render_grid_reference(opacity, absorbance, rotation, size, samples)
        device.counting = True
        return ctx.image.detach()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        device = ctx.device
        device.operators[device.part, "draw_backward and zeros"] += 2
        device.counting = False
        (gradient,) = torch.autograd.grad(ctx.image, ctx.cells, upstream[0])
        device.counting = True
        return None, gradient, None, None, None


def kernel_of(device: FarDevice) -> Callable[..., Tensor]:
    """In place of the reference: packed as `kernels/absorption/trilinear_triton.py` does."""

    def render(opacity: Tensor, absorbance: Tensor, rotation: Tensor, image_size: int, num_samples: int) -> Tensor:
        padded = F.pad(torch.stack([opacity, absorbance])[None], [1] * 6, mode="replicate")[0]
        cells = padded.permute(1, 2, 3, 0).contiguous()
        found = OneKernel.apply(device, cells, rotation, image_size, num_samples)
        assert isinstance(found, Tensor)
        return found

    return render


def told_apart(trainer: Trainer, device: FarDevice) -> None:
    """What a trainer calls says from now on to which part its operators belong; all else belongs to the objectives."""
    adversarial = trainer.objectives["adversarial"]
    assert isinstance(adversarial, Adversarial)
    network = adversarial.discriminator

    def noting(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            before, device.part = device.part, part
            result = function(*arguments, **options)
            device.part = before
            if part in ("renderer", "discriminator"):
                for each in (result,) if isinstance(result, Tensor) else result:
                    if each.requires_grad:  # a backward pass comes here first
                        each.register_hook(lambda _: _enter(device, part))
            return result

        return run

    trainer.renderer.forward = noting("renderer", trainer.renderer.forward)
    network.forward = noting("discriminator", network.forward)
    for optimiser in (trainer.volume_optimiser, adversarial.optimiser):
        optimiser.step = noting("optimisers", optimiser.step)
        optimiser.zero_grad = noting("optimisers", optimiser.zero_grad)
    trainer._average = noting("average", trainer._average)


@contextmanager
def left_again(device: FarDevice) -> Iterator[None]:
    """After a backward pass the part is what it was before it."""

    def keeping(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            before = device.part
            result = function(*arguments, **options)
            device.part = before
            return result

        return run

    with (
        mock.patch.object(Tensor, "backward", keeping(Tensor.backward)),
        mock.patch.object(torch.autograd, "grad", keeping(torch.autograd.grad)),
    ):
        yield


def _enter(device: FarDevice, part: str) -> None:
    device.part = part


@contextmanager
def all_classes() -> Iterator[None]:
    """The views are of all classes, as in a run from some hundred steps."""
    nearest = Exemplars.nearest

    def of_all(exemplars: Exemplars, views: Tensor, classes: Tensor | None = None) -> Tensor:
        spread = None if classes is None else torch.arange(len(classes), device=classes.device) % 10
        return nearest(exemplars, views, spread)

    with mock.patch.object(Exemplars, "nearest", of_all):
        yield


def count() -> dict[str, Any]:
    """Operators by part and by name, copies and waits of a step, and the watchdog's."""
    with (
        far_device(PINNED_FOR) as device,
        all_classes(),
        left_again(device),
        mock.patch.object(implementations, "render_grid_reference", kernel_of(device)),
    ):
        trainer, watchdog = build(), Watchdog()
        watchdog.begin(trainer)
        told_apart(trainer, device)
        reports = [trainer.step() for _ in range(PENALTY_EVERY)]
        device.clear()
        for _ in range(PENALTY_EVERY):
            device.part = "objectives"
            reports.append(trainer.step())
        found = _means(device, PENALTY_EVERY)
        looks = {}
        for name, step in (("watchdog", 1), ("watchdog, full look", LOOK_EVERY)):
            reports[-1].step = step
            device.clear()
            device.part = "watchdog"
            watchdog.after_step(trainer, reports[-1])
            looks[name] = _means(device, 1)
    return {"step": found, **looks}


def _means(device: FarDevice, steps: int) -> dict[str, Any]:
    by_part, by_name = Counter[str](), Counter[str]()
    for (part, name), times in device.operators.items():
        by_part[part] += times
        by_name[name] += times
    return {
        "operators": sum(by_name.values()) / steps,
        "waits": sum(device.waits.values()) / steps,
        "copies": device.copies / steps,
        "operators_by_part": {part: times / steps for part, times in by_part.most_common()},
        "operators_by_name": {name: times / steps for name, times in by_name.most_common()},
        "waits_by_name": {name: times / steps for name, times in device.waits.most_common()},
    }


def show(found: dict[str, dict[str, Any]]) -> None:
    print(f"{'':22}{'operators':>10}{'waits':>8}{'copies':>8}")
    for name, each in found.items():
        print(f"{name:22}{each['operators']:10.1f}{each['waits']:8.1f}{each['copies']:8.1f}")
    step = found["step"]
    print("operators of a step:", ", ".join(f"{part} {times:g}" for part, times in step["operators_by_part"].items()))
    print("waits of a step:", ", ".join(f"{name} {times:g}" for name, times in step["waits_by_name"].items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    found = count()
    show(found)
    if arguments.output:
        arguments.output.write_text(json.dumps({"torch": torch.__version__, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
