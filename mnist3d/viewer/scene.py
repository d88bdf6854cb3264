"""What a page looks at, and how it looks at it: a frozen volume, where it is seen from, and the rendered view.

Plain data and one pure function of both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from ..geometry.rotations import upright_matrix
from ..rendering.pictures import to_uint8
from ..rendering.renderer import AbsorptionRenderer, RendererOptions
from ..volumes.base import Field
from ..volumes.wrappers import NO_CUT, CutField, FrozenField

MIN_SIZE, MAX_SIZE = 8, 1024  # pixels
EXPOSURES = (0.1, 8.0)
SCALES = (0.05, 20.0)


@runtime_checkable
class Verdict(Protocol):
    """What classifiers say of images; `evaluation.classifiers.Reading` is one."""

    label: Tensor
    confidence: Tensor
    guess: Tensor


@runtime_checkable
class Reader(Protocol):
    """What reads images; `evaluation.classifiers.Classifiers` is one."""

    class_names: list[str]

    def read(self, images: Float[Tensor, "N 1 H W"]) -> Verdict:
        """Which class each image shows."""
        ...


@dataclass(frozen=True)
class View:
    """How a page wants to see the volume.

    Args:
        azimuth: radians.
        elevation: radians.
        size: pixels along each edge.
        exposure: factor on the brightness.
        scale: factor on the attenuation.
        cut: depth of the plane before which nothing is shown, along `cut_normal`, [-1, 1]; -1: no cut.
        cut_normal: world direction; None: away from the eye.
        moving: another view follows at once, so a coarser view will do.
        number: counted by the page, to know which answer belongs to which request.
    """

    azimuth: float = 0.0
    elevation: float = 0.0
    size: int = 128
    exposure: float = 1.0
    scale: float = 1.0
    cut: float = NO_CUT
    cut_normal: tuple[float, float, float] | None = None
    moving: bool = False
    number: int = 0

    @classmethod
    def from_message(cls, message: Any) -> "View":
        """What a page sent, every value brought into its range.

        Raises:
            ValueError: a value of another kind, or not finite.
        """
        if not isinstance(message, dict):
            raise ValueError("a view must be an object")
        normal = message.get("cut_normal")
        if normal is not None:
            if not isinstance(normal, list) or len(normal) != 3:
                raise ValueError("cut_normal must be three numbers")
            x, y, z = (_number(value, -1.0, 1.0) for value in normal)
            length = math.hypot(x, y, z)
            if length < 1e-3:
                raise ValueError("cut_normal must not be 0")
            normal = (x / length, y / length, z / length)
        return cls(
            azimuth=_number(message.get("azimuth", 0.0), -1e6, 1e6),
            elevation=_number(message.get("elevation", 0.0), -math.pi, math.pi),
            size=round(_number(message.get("size", 128), MIN_SIZE, MAX_SIZE)),
            exposure=_number(message.get("exposure", 1.0), *EXPOSURES),
            scale=_number(message.get("scale", 1.0), *SCALES),
            cut=_number(message.get("cut", NO_CUT), NO_CUT, 1.0),
            cut_normal=normal,
            moving=bool(message.get("moving", False)),
            number=round(_number(message.get("number", 0), 0, 2**52)),
        )

    @property
    def rotation(self) -> Float[Tensor, "3 3"]:
        """x_camera = rotation @ x_world."""
        return upright_matrix(torch.tensor(self.azimuth), torch.tensor(self.elevation))


def _number(value: Any, low: int | float, high: int | float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == math.inf:
        raise ValueError("numbers must be finite")
    return float(min(max(value, low), high))  # only now: a float does not hold every int


@dataclass(frozen=True)
class Snapshot:
    """A volume at one moment.

    Args:
        volume: frozen, on the CPU.
        version: larger for later snapshots of the same scene.
        step: of the training that made it; None where that is not known.
    """

    volume: FrozenField
    version: int
    step: int | None = None


@torch.no_grad()
def rendered_view(snapshot: Snapshot, options: RendererOptions, view: View, size: int | None = None) -> Tensor:
    """What our renderer shows, (1, 1, H, W) in [0, 1].

    Args:
        snapshot: of what.
        options: quadrature and steps a ray, which belong to the volume.
        view: from where.
        size: pixels; default the view's.
    """
    volume: Field = snapshot.volume
    rotation = view.rotation
    if view.scale != 1.0 or view.cut > NO_CUT:
        normal = rotation[2] if view.cut_normal is None else torch.tensor(view.cut_normal)
        volume = CutField(volume, view.scale, normal, view.cut)
    renderer = AbsorptionRenderer(size or view.size, options.samples_per_ray, options.quadrature)
    return (renderer(volume, rotation) * view.exposure).clamp_(0.0, 1.0)


def grey(image: Float[Tensor, "1 1 H W"]) -> UInt8[ndarray, "H W"]:
    """One image in whole numbers from 0 to 255."""
    return to_uint8(image[0, 0])


@dataclass(frozen=True)
class Atlas:
    """The map of all views of a snapshot.

    Args:
        snapshot: of what.
        began: when it was begun, seconds of the monotonic clock.
        message: for the pages; empty while it is drawn, and when it cannot be.
    """

    snapshot: Snapshot
    began: float
    message: bytes = b""


@dataclass(eq=False)
class Scene:
    """Something that a page can look at.

    Args:
        name: in the menu.
        renderer: how views of it are made.
        snapshot: what it looks like; replaced, never changed.
        reader: says what a view shows, or None.
        figures: step, curves, scores, histogram, for the page; replaced, never changed.
        why_no_reader: shown where the reading would stand.
        atlas: the map of its views as it was last drawn.
    """

    name: str
    renderer: RendererOptions
    snapshot: Snapshot
    reader: Reader | None = None
    figures: dict[str, Any] | None = None
    why_no_reader: str = ""
    atlas: Atlas | None = None


@runtime_checkable
class Shelf(Protocol):
    """Where finished scenes come from."""

    def names(self) -> Sequence[str]:
        """What can be opened, newest first."""
        ...

    def open(self, name: str) -> Scene:
        """The scene of that name.

        Raises:
            ValueError, RuntimeError: it cannot be opened; one line.
        """
        ...
