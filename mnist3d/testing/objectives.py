"""What every objective owes the trainer, as one check that their authors run."""

import copy
import io
import json
import math
import re
from typing import Any

import torch
from torch import Tensor

from ..data.images import ImageSet
from ..geometry.rotations import training_rotations
from ..rendering.renderer import AbsorptionRenderer
from ..training.objectives.base import Batch, Objective
from ..training.objectives.build import build_objectives
from ..training.options import TrainerOptions
from ..training.report import as_numbers
from ..training.trainer import Trainer
from ..volumes.voxel_grid import VoxelGrid

IMAGE_SIZE, VIEWS, CLASSES = 16, 4, 3
PROGRESSES = (0.0, 0.5, 1.0)


def check_objective(objective: Objective, images: ImageSet | None = None) -> None:
    """Check that an objective keeps the contract of `Objective`; the objective itself stays as it is.

    In turn: its name; `prepare` and `loss` at the beginning, the middle and the end of a run, with and without labels,
    with and without a discriminator's class head: a finite scalar that reaches the volume, or None; nothing drawn from
    torch's global generator; the volume left alone; the same again from the same seed; metrics that JSON can hold;
    `claims`; a state that a file keeps and that goes on exactly; some steps of a trainer, beside our own objectives.

    Args:
        objective: as it is trained, on the CPU.
        images: that it was made for, where it was made for some; default a few of 16 pixels in 3 classes.

    Raises:
        AssertionError: the contract is broken; the message says where, what was found and what to do.
    """
    _require(isinstance(objective, Objective), f"{type(objective).__name__} is no subclass of Objective")
    label = type(objective).__name__
    named = isinstance(getattr(type(objective), "name", None), str)
    _require(named, f"{label}: has no name; give the class one, name = 'total_variation'")
    _require(
        re.fullmatch(r"[a-z][a-z0-9_]*", objective.name) is not None,
        f"{label}: its name {objective.name!r} is also that of its options: lower case letters, digits and _",
    )
    given = images or _images()
    asked = False
    with torch.random.fork_rng(devices=[]):
        for labelled in (True, False) if given.labels is not None else (False,):
            for head in (True, False):
                for progress in PROGRESSES:
                    where = f"{label} at progress {progress:g}, {'with' if labelled else 'without'} labels"
                    where += f", {'beside' if head else 'without'} a discriminator"
                    asked |= _check_step(objective, _Scene(given, labelled, head), progress, where)
        _require(asked, f"{label}: its loss is None at every progress; nothing ever moves the volume")
        _check_claims(objective, label)
        _check_state(objective, given, label)
        _check_in_trainer(objective, given, label)


def _require(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _images() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(24, 1, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    return ImageSet(images, torch.arange(24) % CLASSES, [str(k) for k in range(CLASSES)])


class _Scene:
    """A volume and steps of it, the same ones each time."""

    def __init__(self, images: ImageSet, labelled: bool, head: bool) -> None:
        torch.manual_seed(0)
        self.images, self.labels = images.images, images.labels if labelled else None
        self.volume, self.renderer = VoxelGrid(6), AbsorptionRenderer(images.images.shape[-1])
        self.generator = torch.Generator().manual_seed(1)
        classes = len(images.class_names) if labelled else 0
        self.head = torch.randn(self.images[0].numel(), classes) if head else None
        self.step = 0

    def batch(self, progress: float) -> Batch:
        """The next step's."""
        batch = Batch(
            volume=self.volume,
            renderer=self.renderer,
            generator=self.generator,
            step=self.step,
            progress=progress,
            rate=1.0,
            all_images=self.images,
            all_labels=self.labels,
            count=VIEWS,
            max_tilt=10.0,
            draw_rotations=lambda: training_rotations(VIEWS, self.generator),
        )
        self.step += 1
        if self.head is not None:
            batch.class_logits = batch.views.flatten(1) @ self.head
        return batch


def _check_step(objective: Objective, scene: _Scene, progress: float, where: str) -> bool:
    """One step of a copy, twice; returns whether it had a loss."""
    before = torch.get_rng_state()
    weights = [weight.clone() for weight in scene.volume.parameters()]
    twin, again = copy.deepcopy(objective), copy.deepcopy(objective)
    state = scene.generator.get_state()
    loss = _loss(twin, scene.batch(progress), where)
    _require(
        torch.equal(torch.get_rng_state(), before),
        f"{where}: draws from torch's global generator; use batch.generator, which an exact resume puts back",
    )
    after = scene.volume.parameters()
    untouched = all(torch.equal(old, new) for old, new in zip(weights, after, strict=True))
    _require(untouched, f"{where}: changes the volume; the trainer alone moves it")
    _check_metrics(twin, where)
    scene.generator.set_state(state)
    scene.step -= 1
    repeated = _loss(again, scene.batch(progress), where)
    same = (loss is None) == (repeated is None) and (loss is None or torch.equal(loss, repeated))  # pyright: ignore[reportArgumentType]
    _require(same, f"{where}: another loss from the same seed; draw from batch.generator only")
    if loss is None:
        return False
    gradients = torch.autograd.grad(loss, list(scene.volume.parameters()), allow_unused=True)
    reached = [gradient for gradient in gradients if gradient is not None]
    _require(reached, f"{where}: its loss does not reach the volume (detach, no_grad, .item()); return None while off")
    finite = all(bool(gradient.isfinite().all()) for gradient in reached)
    _require(finite, f"{where}: the gradient to the volume is not finite")
    return True


def _loss(objective: Objective, batch: Batch, where: str) -> Tensor | None:
    try:
        objective.prepare(batch)
        loss = objective.loss(batch)
    except Exception as error:
        raise AssertionError(
            f"{where}: raised {type(error).__name__}: {error}; return None where it cannot ask"
        ) from error
    _require(
        all(weight.grad is None for weight in batch.volume.parameters()),
        f"{where}: leaves a gradient in the volume's parameters; teach modules of your own on detached views",
    )
    if loss is None:
        return None
    _require(isinstance(loss, Tensor) and loss.ndim == 0, f"{where}: its loss must be a scalar tensor or None")
    _require(bool(loss.isfinite()), f"{where}: its loss is {loss.item()}")
    _require(loss.requires_grad, f"{where}: its loss does not reach the volume (detach, no_grad); None while it is off")
    return loss


def _check_metrics(objective: Objective, where: str) -> None:
    reported = objective.metrics()
    try:
        metrics = as_numbers(reported)
    except ValueError as error:
        raise AssertionError(f"{where}: its {error}") from error
    attached = [name for name, value in reported.items() if isinstance(value, Tensor) and value.requires_grad]
    _require(
        not attached, f"{where}: its metric {', '.join(attached)} carries gradients; it must be detached (.detach())"
    )
    for name, value in metrics.items():
        numbers = value if isinstance(value, list) else [value]
        plain = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        _require(
            plain, f"{where}: its metric {name} is {value!r}; it must be a finite number, a list of them or a tensor"
        )
        json.dumps({name: value})
    missing = set(objective.in_progress_line) - set(metrics)
    _require(not missing, f"{where}: in_progress_line names {', '.join(missing)}, which metrics() does not report")


def _check_claims(objective: Objective, label: str) -> None:
    rotations = training_rotations(5, torch.Generator().manual_seed(2))
    claimed = objective.claims(rotations)
    right = claimed is None or (claimed.dtype == torch.bool and claimed.shape == (5,))
    _require(right, f"{label}: claims must return None or a boolean for each rotation")


def _check_state(objective: Objective, images: ImageSet, label: str) -> None:
    """Saved after a step and loaded into another copy, both go on alike."""
    scene = _Scene(images, images.labels is not None, head=True)
    twin, other = copy.deepcopy(objective), copy.deepcopy(objective)
    _loss(twin, scene.batch(0.9), label)
    state, step = scene.generator.get_state(), scene.step
    buffer = io.BytesIO()
    try:
        torch.save(twin.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True))
    except Exception as error:
        raise AssertionError(
            f"{label}: its state cannot be saved and loaded ({error}); keep tensors as buffers, all else in "
            "get_extra_state as plain values"
        ) from error
    expected = [_loss(twin, scene.batch(1.0), label) for _ in range(2)]
    scene.generator.set_state(state)
    scene.step = step
    found = [_loss(other, scene.batch(1.0), label) for _ in range(2)]
    same = all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(expected, found, strict=True)
    )
    _require(same, f"{label}: goes on otherwise after its state was saved and loaded; all that changes belongs to it")


def _check_in_trainer(objective: Objective, images: ImageSet, label: str) -> None:
    torch.manual_seed(0)
    others = [other for other in build_objectives(images) if other.name != objective.name]
    trainer = Trainer(
        VoxelGrid(6),
        AbsorptionRenderer(images.images.shape[-1]),
        images,
        [*others, copy.deepcopy(objective)],
        options=TrainerOptions(max_steps=3, views=VIEWS),
    )
    reports: list[Any] = []
    try:
        reports += [trainer.step() for _ in range(3)]
    except Exception as error:
        raise AssertionError(f"{label}: a trainer's step raised {type(error).__name__}: {error}") from error
    finite = all(bool(weight.isfinite().all()) for weight in trainer.volume.parameters())
    _require(finite, f"{label}: after {len(reports)} steps the volume is not finite")
