"""`Objective`: what a loss owes the trainer; `Batch`: what it is handed in each step."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from ...data.augment import tilted
from ...geometry.on_device import sent
from ...rendering.renderer import AbsorptionRenderer
from ...volumes.base import Volume
from ..options import PrecisionName
from ..processes import ALONE, Processes


@dataclass
class Batch:
    """One step's material. Images, rotations and views are drawn when they are first asked for, and then kept.

    Args:
        volume: what is sculpted; views of it carry gradients.
        renderer: makes its views.
        generator: the run's source of randomness, on the CPU.
        step: steps done so far.
        progress: share of the run that is done, [0, 1].
        rate: what learning rates are multiplied with in this step.
        all_images: real images to draw from, on the volume's device.
        all_labels: class of each, or None.
        count: images, rotations and views of a step, B.
        max_tilt: degrees, 0 to 60: how far real images are turned out of their plane at random.
        draw_rotations: `count` fresh rotations of the run's pose distribution, on the CPU.
        processes: those of the run, which share the work on the batch.
        at_once: views, or images, of which a step keeps what lies between two operations at a time; None: all.
        precision: what the discriminator's body computes in.
    """

    volume: Volume
    renderer: AbsorptionRenderer
    generator: Generator
    step: int
    progress: float
    rate: float
    all_images: Float[Tensor, "N 1 H W"]
    all_labels: Int[Tensor, " N"] | None
    count: int
    max_tilt: float
    draw_rotations: Callable[[], Float[Tensor, "B 3 3"]]
    processes: Processes = ALONE
    at_once: int | None = None
    precision: PrecisionName = "float32"
    class_logits: Float[Tensor, "B K"] | None = field(default=None, init=False)
    """What the discriminator's class head reads in the views, with gradients; None without a discriminator."""
    brightness: Tensor | None = field(default=None, init=False)
    """Mean brightness of the views that were rendered first in this step."""

    @cached_property
    def images(self) -> Float[Tensor, "B 1 H W"]:
        """Real images, brightness in [0, 1]."""
        images = self.all_images[self._chosen]
        return tilted(images, self.max_tilt, self.generator) if self.max_tilt > 0 else images

    @cached_property
    def labels(self) -> Int[Tensor, " B"] | None:
        """Class of each of `images`."""
        return None if self.all_labels is None else self.all_labels[self._chosen]

    @cached_property
    def rotations(self) -> Float[Tensor, "B 3 3"]:
        """Directions that the step looks from, on the volume's device."""
        return sent(self.draw_rotations().to(self.all_images.dtype), self.all_images)

    @cached_property
    def views(self) -> Float[Tensor, "B 1 H W"]:
        """The volume under `rotations`, brightness in [0, 1], with gradients."""
        return self.render(self.rotations)

    def render(self, rotations: Float[Tensor, "R 3 3"]) -> Float[Tensor, "R 1 H W"]:
        """Views of the volume under rotations of the caller's own, with gradients.

        Each process renders a part of them, and gets those of all; of more processes than views, some render one more.
        """
        part = own = self.processes.own(len(rotations))
        if own.start == own.stop:  # its views reach the weights all the same, as those of all others do
            part = slice(0, 1)
        mine = self.renderer(self.volume, rotations, generator=self.generator, part=part, at_once=self.at_once)
        mine = mine.to(self.all_images.dtype)[: own.stop - own.start]
        (views,) = self.processes.whole(len(rotations), mine)
        if self.brightness is None:
            self.brightness = views.detach().mean()
        return views

    @cached_property
    def _chosen(self) -> Int[Tensor, " B"]:
        source = self.generator
        index = torch.randint(len(self.all_images), (self.count,), generator=source, device=source.device)
        return sent(index, self.all_images)


class Objective(nn.Module, ABC):
    """One reason why the volume moves.

    In each step the trainer calls `prepare` of every objective, adds up their `loss`, and moves the volume down the
    sum. Parameters of an objective's own (a discriminator) it teaches itself, in `prepare`. Buffers, sub-modules and
    `get_extra_state` are its state: a resumed run goes on exactly where it was.

    In a run on several processes each of them does all this with the same whole batch, and comes to the same numbers;
    only views are rendered in parts. Work of its own an objective can share by way of `batch.processes`.

    An objective from another package is built from plain arguments (`--objectives.add package.Class`, options as
    `--NAME.option`), as a volume is. Its constructor must not draw random numbers from torch's global generator.
    """

    name: ClassVar[str]
    """Of the objective and of its options: lower case, [a-z_0-9]+."""
    in_progress_line: ClassVar[dict[str, str]] = {}
    """Metrics that the progress line shows, each with a label of a few letters."""

    def prepare(self, batch: Batch) -> None:
        """Called before any loss of the step: draw what is random, teach what learns."""

    @abstractmethod
    def loss(self, batch: Batch) -> Float[Tensor, ""] | None:
        """The loss of this step, weighted; None while it is off.

        Gradients:
            To the volume's parameters.
        """

    def metrics(self) -> dict[str, Any]:
        """Figures of the last step, for `stats.jsonl`, terminal and page: finite numbers or lists of them, or tensors.

        Tensors, detached, of one number or one row of them, cost least: the trainer reads those of all objectives at
        once, while each `.item()` of a step lets the host wait for the device. What is called `..._loss` is drawn as a
        curve. A name belongs to one objective of a run.
        """
        return {}

    def claims(self, rotations: Float[Tensor, "B 3 3"]) -> Bool[Tensor, " B"] | None:
        """Which views look from where this objective alone decides; the others are then drawn elsewhere, where there
        is room. None: it claims no directions at all."""
        return None


def check_weight(key: str, value: float, lowest: str = ">= 0") -> None:
    """A weight must be finite and >= 0, or > 0.

    Raises:
        ValueError: it is not; the message names the key.
    """
    if not (0.0 <= value < math.inf) or (lowest == "> 0" and value == 0.0):
        raise ValueError(f"{key}={value}: must be finite and {lowest}")
