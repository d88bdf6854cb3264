"""Sculpting on purpose: a list of directions and what the volume must show there.

What it is: the list as options, its reading and checking, one exemplar a target, and views drawn near the targets
with the picture that each should be. What it is not: no loss and no optimiser; the trainer pulls.

A target's picture is a flat plate through the centre that faces the eye: a view a few degrees off sees it narrowed.
That is something a volume can be, so neighbouring views agree; a hologram of the same picture from everywhere is not.
"""

import difflib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from .datasets import DataError, DataOptions, ImageSet, read_picture, shrunk_into_square
from .exemplars import blur
from .plates import seen_as_plate
from .poses import upright_matrix

DIRECTION_KEYS = ("azimuth", "elevation")
SUBJECT_KEYS = ("digit", "class", "picture", "text")
RING_KEYS = {"digits": "digit", "classes": "class", "pictures": "picture", "text": "text"}
INK_RANGE = (0.2, 0.5)  # quantiles of a class's total brightness between which an exemplar lies
TYPICAL_SHARE = 0.1  # of those, nearest to the whole class, among which the ones clearest from others are taken
FELLOWS = 8  # the nearest of its own class that an exemplar is compared with, itself included
FEWEST_TYPICAL = 4
MEMBERS_COMPARED = 1000  # bounds the distances within a class and to the others
NEAR = 1.5  # times the jitter: just beyond the corners of the square that views are drawn from


@dataclass
class TargetOptions:
    """Directions in which the volume must show a chosen picture.

    A target names a direction and one subject: {azimuth: 36, elevation: 0, digit: 1}. Azimuth and elevation are in
    degrees, 0 without them; the subject is `digit: 3`, `class: name` (a class of the data), `picture: file.png`
    (bright on black) or `text: A` (drawn in Pillow's own font).

    Args:
        views: List of targets.
        rings: List of rings of evenly spaced targets: {elevation: 0, azimuth: 0, digits: [0, 1, 2]}, or with
            `classes: [names]`, `pictures: [files]` or `text: ABC` (one letter a target); azimuth is the first one's.
        weight: Weight of the mean absolute difference between views near the targets and their pictures, > 0.
        jitter: Largest random distance, in azimuth and in elevation, of a view from its target, degrees, 0 to 45.
        views_per_step: Views near the targets that are rendered in each step, evenly over the targets, at least 1.
        focus: Power by which the pull leans on the targets whose views are furthest from their pictures, >= 0; 0 pulls
            at all alike.
    """

    # of mappings; any more exact a type and the command line's parser would turn the text "08" into a number
    views: list[Any] | None = None
    rings: list[Any] | None = None
    weight: float = 10.0
    jitter: float = 10.0
    views_per_step: int = 40
    focus: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < math.inf:
            raise ValueError(f"targets.weight={self.weight}: allowed are weights > 0")
        if not 0.0 <= self.jitter <= 45.0:
            raise ValueError(f"targets.jitter={self.jitter}: allowed are degrees from 0 to 45")
        if self.views_per_step < 1:
            raise ValueError(f"targets.views_per_step={self.views_per_step}: allowed are numbers from 1")
        if not 0.0 <= self.focus < math.inf:
            raise ValueError(f"targets.focus={self.focus}: allowed are numbers >= 0")
        self.listed()

    def listed(self) -> list["Target"]:
        """All targets, those of the rings written out; empty when none are asked for.

        Raises:
            ValueError: an entry that is no target; the message names it.
        """
        found = []
        for key, entries, read in (("views", self.views, _read_view), ("rings", self.rings, _read_ring)):
            if entries is not None and len(entries) == 0:
                raise ValueError(f"targets.{key}=[]: name at least one target, or leave the key out")
            for number, entry in enumerate(entries or []):
                found += read(f"targets.{key}[{number}]", entry)
        return found


@dataclass(frozen=True)
class Target:
    """What is asked for in one direction.

    Args:
        place: where the configuration asks for it, for messages.
        azimuth: degrees.
        elevation: degrees, -90 to 90.
        kind: digit, class, picture or text.
        subject: name of the class, path of the picture, or the text.
    """

    place: str
    azimuth: float
    elevation: float
    kind: str
    subject: str


def _read_view(place: str, entry: Any) -> list[Target]:
    values = _checked(place, entry, (*DIRECTION_KEYS, *SUBJECT_KEYS))
    kinds = [key for key in SUBJECT_KEYS if key in values]
    if len(kinds) != 1:
        raise ValueError(f"{place}: exactly one of {', '.join(SUBJECT_KEYS)} must say what to show, got {len(kinds)}")
    return [_target(place, values, values.get("azimuth", 0.0), kinds[0], values[kinds[0]])]


def _read_ring(place: str, entry: Any) -> list[Target]:
    values = _checked(place, entry, (*DIRECTION_KEYS, *RING_KEYS))
    kinds = [key for key in RING_KEYS if key in values]
    if len(kinds) != 1:
        raise ValueError(f"{place}: exactly one of {', '.join(RING_KEYS)} must say what to show, got {len(kinds)}")
    subjects = values[kinds[0]]
    if not isinstance(subjects, list | str) or len(subjects) == 0 or (kinds[0] != "text" and isinstance(subjects, str)):
        raise ValueError(f"{place}.{kinds[0]}={subjects!r}: allowed are lists of at least one (of text, letters)")
    first = _degrees(f"{place}.azimuth", values.get("azimuth", 0.0), math.inf)
    return [
        _target(place, values, first + 360.0 * number / len(subjects), RING_KEYS[kinds[0]], subject)
        for number, subject in enumerate(subjects)
    ]


def _checked(place: str, entry: Any, allowed: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise ValueError(f"{place}={entry!r}: allowed are mappings such as {{azimuth: 36, elevation: 0, digit: 1}}")
    for key in entry:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1, cutoff=0.6)
            hint = f", did you mean {near[0]}?" if near else ""
            raise ValueError(f"{place}.{key}: no such key{hint}; allowed are {', '.join(allowed)}")
    return entry


def _target(place: str, values: dict[str, Any], azimuth: Any, kind: str, subject: Any) -> Target:
    if kind == "digit" and (isinstance(subject, bool) or not isinstance(subject, int) or not 0 <= subject <= 9):
        raise ValueError(f"{place}.digit={subject!r}: allowed are 0 to 9")
    if isinstance(subject, list | dict) or subject is None or not str(subject).strip():
        raise ValueError(f"{place}.{kind}={subject!r}: allowed is one {kind}, not empty")
    elevation = _degrees(f"{place}.elevation", values.get("elevation", 0.0), 90.0)
    return Target(place, _degrees(f"{place}.azimuth", azimuth, math.inf), elevation, kind, str(subject))


def _degrees(place: str, value: Any, limit: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > limit:
        allowed = "numbers of degrees" if math.isinf(limit) else f"degrees from {-limit:g} to {limit:g}"
        raise ValueError(f"{place}={value!r}: allowed are {allowed}")
    return float(value)


class Targets:
    """Directions with their pictures, from which training views are drawn.

    Args:
        azimuth: radians.
        elevation: radians.
        pictures: what each direction shows, brightness in [0, 1].
        options: weight, jitter and number of views.
    """

    def __init__(
        self,
        azimuth: Float[Tensor, " K"],
        elevation: Float[Tensor, " K"],
        pictures: Float[Tensor, "K 1 H W"],
        options: TargetOptions,
    ) -> None:
        self.azimuth, self.elevation, self.pictures, self.options = azimuth, elevation, pictures, options

    @property
    def rotations(self) -> Float[Tensor, "K 3 3"]:
        """The targets' own directions, upright, on the CPU."""
        return upright_matrix(self.azimuth, self.elevation)

    def draw(self, generator: Generator) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B 1 H W"], Int[Tensor, " B"]]:
        """Rotations near the targets, every target as often as the others, what each should show, and its target.

        Args:
            generator: a CPU generator, advanced by the call.

        Returns:
            Rotations on the CPU, each within `jitter` of its target in azimuth and in elevation; pictures on the
            device of the targets' pictures, and so each one's number in the list.
        """
        count = self.options.views_per_step
        first = torch.randint(len(self.azimuth), (1,), generator=generator)
        target = (first + torch.arange(count)) % len(self.azimuth)
        offset = math.radians(self.options.jitter) * (2.0 * torch.rand(2, count, generator=generator) - 1.0)
        rotations = upright_matrix(self.azimuth[target] + offset[0], self.elevation[target] + offset[1])
        device = self.pictures.device
        centres = self.rotations[target].to(device)
        target = target.to(device)
        return rotations, seen_as_plate(self.pictures[target], rotations.to(device), centres), target

    def near(self, rotations: Float[Tensor, "B 3 3"]) -> Bool[Tensor, " B"]:
        """Which views look from so near a target that the targets alone decide there."""
        axis, own = rotations[:, 2], self.rotations[:, 2].to(rotations)  # third row: where the camera looks from
        return (axis @ own.mT).amax(dim=1) > math.cos(math.radians(NEAR * self.options.jitter))


def build_targets(options: TargetOptions, images: ImageSet, data: DataOptions) -> Targets | None:
    """The targets of a configuration with their pictures; None when it asks for none.

    Args:
        options: what is asked for.
        images: real pictures, of which classes get an exemplar, and whose size the pictures take.
        data: how picture files are fitted into the square.

    Raises:
        DataError: a class that the data lacks, a letter that the font lacks, a picture that cannot be read.
    """
    listed = options.listed()
    if not listed:
        return None
    size = images.images.shape[-1]
    drawn: dict[tuple[str, str], Tensor] = {}
    for target in listed:
        key = (target.kind, target.subject)
        if key in drawn:
            continue
        if target.kind in ("digit", "class"):
            drawn[key] = exemplar(images, _class_index(target, images))
        elif target.kind == "text":
            drawn[key] = _text(target, size)
        else:
            drawn[key] = _picture(target, size, data.scale)
    pictures = torch.stack([drawn[target.kind, target.subject] for target in listed])
    azimuth, elevation = torch.tensor([(t.azimuth, t.elevation) for t in listed]).deg2rad().unbind(1)
    return Targets(azimuth, elevation, pictures, options)


def exemplar(images: ImageSet, label: int) -> Float[Tensor, "1 H W"]:
    """One real picture that stands for a class: typical of it, and clear from the others.

    Neither bold nor faint: targets share the volume, and bold ones leave the others no room. Typical: of those, the
    few with the smallest mean distance to the class, blurred and of unit length. Clear: of these, the one furthest
    from any picture of another class, and near to some of its own.

    Args:
        images: labelled pictures.
        label: the class.
    """
    assert images.labels is not None
    # of unit length: else the thinnest and smallest pictures, near to everything, would count as typical
    features = F.normalize(blur(images.images).flatten(1), dim=1)
    ink = images.images.sum(dim=(1, 2, 3))
    own = (images.labels == label).nonzero()[:, 0]
    other = (images.labels != label).nonzero()[:, 0]
    compared, rivals = (_thinned(which, MEMBERS_COMPARED) for which in (own, other))
    low, high = ink[own].quantile(ink.new_tensor(INK_RANGE))
    middling = own[(ink[own] >= low) & (ink[own] <= high)]
    own = middling if len(middling) else own  # of two or three pictures none may lie between the quantiles
    distance = torch.cdist(features[own], features[compared])
    typical = distance.mean(dim=1).argsort()[: max(FEWEST_TYPICAL, round(TYPICAL_SHARE * len(own)))]
    if len(rivals):
        # against the nearest of its own class too: a blot makes a picture unlike both
        clearance = torch.cdist(features[own[typical]], features[rivals]).amin(dim=1)
        fellows = distance[typical].sort(dim=1).values[:, 1:FELLOWS].mean(dim=1).nan_to_num()
        typical = typical[(clearance - fellows).argsort(descending=True)]
    return images.images[own[typical[0]]]


def _thinned(index: Tensor, most: int) -> Tensor:
    return index[:: max(1, math.ceil(len(index) / most))]


def _class_index(target: Target, images: ImageSet) -> int:
    if images.labels is None:
        raise DataError(
            f"{target.place}.{target.kind}={target.subject}: the pictures have no labels; "
            "allowed are picture and text, or labelled data"
        )
    present = [name for label, name in enumerate(images.class_names) if bool((images.labels == label).any())]
    if target.subject not in present:
        shown = ", ".join(present[:30])
        raise DataError(f"{target.place}.{target.kind}={target.subject}: the data has no such class; it has {shown}")
    return images.class_names.index(target.subject)


def _text(target: Target, size: int) -> Float[Tensor, "1 H W"]:
    from .glyphs import draw_text  # Pillow, which most runs do not need

    try:
        return draw_text(target.subject, size)
    except DataError as error:
        raise DataError(f"{target.place}.{error}") from None


def _picture(target: Target, size: int, scale: float) -> Float[Tensor, "1 H W"]:
    from PIL import ImageOps

    try:
        grey = read_picture(Path(target.subject))
    except DataError as error:
        raise DataError(f"{target.place}.picture={target.subject}: {str(error).partition(': ')[2]}") from None
    edge = max(grey.size)
    square = ImageOps.pad(grey, (edge, edge))
    brightness = torch.tensor(np.asarray(square), dtype=torch.float32)[None, None] / 255.0
    return shrunk_into_square(brightness, size, scale)[0]
