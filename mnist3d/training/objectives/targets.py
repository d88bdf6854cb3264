"""Targets: in each of a list of directions the volume must show a chosen image.

A target's image is a flat plane through the centre that faces the camera: a view a few degrees off sees it narrowed.
A volume can do that, so neighbouring views agree; it cannot show the same image undistorted from everywhere.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from ...data.augment import seen_as_plane
from ...data.ground import ground_of, is_inverted, seen, squared
from ...data.image_files import read_image
from ...data.images import ImageSet, reduced, shrunk_into_square
from ...data.options import DataOptions
from ...data.typical import exemplar
from ...errors import DataError
from ...geometry.on_device import sent
from ...geometry.rotations import upright_matrix
from .base import Batch, Objective
from .group_weights import GroupWeights
from .target_list import Target, TargetOptions

NEAR = 1.5  # times the jitter: just beyond the corners of the square that views are drawn from


class Targets(Objective):
    """Mean absolute difference between views near the targets and what each should show, targets weighted.

        loss = mean weight_k * mean |view - image|      weight_k as in `GroupWeights`

    Args:
        azimuth: radians.
        elevation: radians.
        images: what each direction shows, brightness in [0, 1], on the volume's device.
        options: weight, jitter, focus and number of views.
        remarks: what was decided about image files that the user should know, a line each.

    Its state is the running means of the targets.
    """

    name = "targets"
    in_progress_line = {"target_loss": "T"}  # noqa: RUF012 - never changed
    images: Float[Tensor, "K 1 H W"]

    def __init__(
        self,
        azimuth: Float[Tensor, " K"],
        elevation: Float[Tensor, " K"],
        images: Float[Tensor, "K 1 H W"],
        options: TargetOptions,
        remarks: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.azimuth, self.elevation, self.options, self.remarks = azimuth, elevation, options, tuple(remarks)
        self.register_buffer("images", images, persistent=False)
        self.weights = GroupWeights(len(azimuth), options.focus).to(images)
        self._last: Tensor | float = 0.0
        self._drawn: tuple[Tensor, Tensor, Tensor] | None = None

    def prepare(self, batch: Batch) -> None:
        """Draw views near the targets, and render them."""
        rotations, images, target = self.draw(batch.generator)
        self._drawn = batch.render(sent(rotations.to(images.dtype), images)), images, target

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The weighted difference; moves the running means."""
        assert self._drawn is not None
        (views, images, target), self._drawn = self._drawn, None
        difference = (views - images).abs().mean(dim=(1, 2, 3))
        loss = (self.weights(target, difference.detach(), images) * difference).mean()
        self._last = loss.detach()
        return self.options.weight * loss

    def metrics(self) -> dict[str, Any]:
        """The difference before its weight."""
        return {"target_loss": self._last}

    def claims(self, rotations: Float[Tensor, "B 3 3"]) -> Bool[Tensor, " B"]:
        """Which views look from so near a target that the targets alone decide there."""
        axis, own = rotations[:, 2], self.rotations[:, 2].to(rotations)  # third row: where the camera looks from
        return (axis @ own.mT).amax(dim=1) > math.cos(math.radians(NEAR * self.options.jitter))

    @property
    def rotations(self) -> Float[Tensor, "K 3 3"]:
        """The targets' own directions, upright, on the CPU."""
        return upright_matrix(self.azimuth, self.elevation)

    def draw(self, generator: Generator) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B 1 H W"], Int[Tensor, " B"]]:
        """Rotations near the targets, every target as often as the others, what each should show, and its target.

        Args:
            generator: a CPU generator, advanced by the call.

        Returns:
            Rotations on the CPU, each within `jitter` of its target in azimuth and in elevation; images on the
            device of the targets' images, and so each one's number in the list.
        """
        count = self.options.views_per_step
        source = generator.device
        first = torch.randint(len(self.azimuth), (1,), generator=generator, device=source)
        target = (first + torch.arange(count, device=source)) % len(self.azimuth)
        chance = torch.rand(2, count, generator=generator, dtype=self.azimuth.dtype, device=source)
        offset = math.radians(self.options.jitter) * (2.0 * chance - 1.0)
        rotations = upright_matrix(self.azimuth[target] + offset[0], self.elevation[target] + offset[1])
        centres, target = self.rotations[target], sent(target, self.images)
        return rotations, seen_as_plane(self.images[target], rotations, centres), target


def build_targets(options: TargetOptions, images: ImageSet, data: DataOptions) -> Targets | None:
    """The targets of a configuration with their images; None when it asks for none.

    Args:
        options: what is asked for.
        images: real images, of which classes get an exemplar, and whose size the images take.
        data: how image files are fitted into the square.

    Raises:
        DataError: a class that the data lacks, a letter that the font lacks, an image that cannot be read.
    """
    listed = options.listed()
    if not listed:
        return None
    size = images.images.shape[-1]
    drawn: dict[tuple[str, str], Tensor] = {}
    remarks: list[str] = []
    for target in listed:
        key = (target.kind, target.subject)
        if key in drawn:
            continue
        if target.kind in ("digit", "class"):
            drawn[key] = exemplar(images, _class_index(target, images))
        elif target.kind == "text":
            drawn[key] = _text(target, size)
        else:
            drawn[key], said = _image_file(target, size, data)
            remarks += said
    wanted = torch.stack([drawn[target.kind, target.subject] for target in listed])
    angles = torch.tensor([(t.azimuth, t.elevation) for t in listed], dtype=wanted.dtype, device="cpu")
    azimuth, elevation = angles.deg2rad().unbind(1)
    return Targets(azimuth, elevation, wanted, options, remarks)


def _class_index(target: Target, images: ImageSet) -> int:
    if images.labels is None:
        raise DataError(
            f"{target.place}.{target.kind}={target.subject}: the images have no labels; "
            "use image or text, or labelled data"
        )
    present = [name for label, name in enumerate(images.class_names) if bool((images.labels == label).any())]
    if target.subject not in present:
        shown = ", ".join(present[:30])
        raise DataError(f"{target.place}.{target.kind}={target.subject}: the data has no such class; it has {shown}")
    return images.class_names.index(target.subject)


def _text(target: Target, size: int) -> Float[Tensor, "1 H W"]:
    from ...data.text import draw_text  # Pillow, which most runs do not need

    try:
        return draw_text(target.subject, size)
    except DataError as error:
        raise DataError(f"{target.place}.{error}") from None


def _image_file(target: Target, size: int, data: DataOptions) -> tuple[Float[Tensor, "1 H W"], list[str]]:
    """The image, and what was decided about it, a line each."""
    place = f"{target.place}.image={target.subject}"
    try:
        file = read_image(Path(target.subject))
    except DataError as error:
        raise DataError(f"{place}: {str(error).partition(': ')[2]}") from None
    ground = ground_of(file)
    inverted = is_inverted(data.invert, ground)
    remarks = [f"{place}: dark on white, inverted; --data.invert false keeps images as they are"] if inverted else []
    remarks += [f"{place}: {line}" for line in reduced(*file.grey.size, size)]
    square = squared(seen(file, inverted, ground), ground)
    brightness = torch.tensor(np.asarray(square), dtype=torch.float32)[None, None] / 255.0
    return shrunk_into_square(brightness, size, data.scale)[0], remarks
