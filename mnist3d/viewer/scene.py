"""What a page looks at, and how it looks at it: a frozen volume, and where it is seen from.

Plain data; `drawing` makes views of the two.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ..geometry.rotations import upright_matrix
from ..rendering.renderer import RendererOptions
from ..rendering.shading import Shading, StyleName
from ..volumes.wrappers import NO_CUT, FrozenField

MIN_SIZE, MAX_SIZE = 8, 1024  # pixels
EXPOSURES = (0.1, 8.0)
SCALES = (0.05, 20.0)
ZOOMS = (1.0, 8.0)


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
        zoom: the middle 1 / zoom of the view's edge is shown.
        style: exact, or shaded.
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
    zoom: float = 1.0
    style: StyleName = "exact"
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
        style = message.get("style", "exact")
        if style not in get_args(StyleName):
            raise ValueError(f"style must be one of {', '.join(get_args(StyleName))}")
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
            zoom=_number(message.get("zoom", 1.0), *ZOOMS),
            style=style,
            moving=bool(message.get("moving", False)),
            number=round(_number(message.get("number", 0), 0, 2**52)),
        )

    @property
    def as_read(self) -> "View":
        """What of it classifiers are shown: equal for views that differ only in how one looks at them."""
        return replace(self, size=MIN_SIZE, zoom=1.0, style="exact", moving=False, number=0)

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


@dataclass(frozen=True)
class Atlas:
    """The map of all views. Each row is of what was the newest snapshot when it was drawn.

    Args:
        snapshot: the newest one when it was begun.
        began: when, seconds of the monotonic clock.
        reader: of its views, or None.
        message: for the pages; empty before the first one is whole, and when it cannot be drawn.
        whole: whether all rows have been drawn since it was begun.
        rows: what it is put together of; for `readings`.
    """

    snapshot: Snapshot
    began: float
    reader: Reader | None = None
    message: bytes = b""
    whole: bool = False
    rows: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Lit:
    """A snapshot's shading.

    Args:
        snapshot: of what.
        shading: what of its shaded views does not depend on the direction.
    """

    snapshot: Snapshot
    shading: Shading


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
        notice: a line that a page shows when it begins to look at the scene.
        atlas: the map of its views as it was last drawn.
        lit: the shading that was made last.
    """

    name: str
    renderer: RendererOptions
    snapshot: Snapshot
    reader: Reader | None = None
    figures: dict[str, Any] | None = None
    why_no_reader: str = ""
    notice: str = ""
    atlas: Atlas | None = None
    lit: Lit | None = None


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
