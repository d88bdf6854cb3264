"""Fields without voxels that can be rendered as a grid all the same: evaluated on one, once a step, coarse to fine."""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..geometry.arrays import computed
from ..geometry.grids import voxel_centres
from ..geometry.parts import computed_again
from .base import Field, Volume
from .growth import checked_growths, coarser, still_to_come

MAX_BAKE = 256
# Attenuation counts in steps of this length, as in the default dense grid, so that both begin alike.
REFERENCE_STEP = 2.0 / 48.0
CHANNELS = 2
POINTS_AT_ONCE = 2**18  # bounds the memory of a bake that needs no gradient
IN_CACHE, ON_DEVICE = 2**13, 2**20  # points that go through a network at a time
MOST_KEPT = 2**25  # numbers that are kept for the gradient; what would be more is computed again, in half of the speed
Times = list[int | float]


class BakedField(Volume):
    """A field of a network, rendered along rays, or, with `bake_resolution`, as the grid of its values at voxels.

        attenuation = softplus(raw[0] + bias[0]) / (2 / 48)
        absorbance  = sigmoid(raw[1] + bias[1])

    Abstract: a subclass has `raw` and `_baked`, and arguments of the same names. What it holds besides the network's
    own weights is the bias, which gives the start where `raw` is 0.

    Args:
        bake_resolution: voxels along each edge of the grid, 1 to 256; None: there is none.
        grow_at: when that grid doubles, see `checked_growths`.
        initial_opacity: of a step of 2/48 world units at the start, > 0 and < 1.
        initial_brightness: 1 - absorbance at the start, > 0 and < 1.
        others: further arguments of times, by their names in `STAGES`, checked already; None: none, and not in the
            state.

    Raises:
        ValueError: a value outside its range.
    """

    STAGES: ClassVar[dict[str, str]] = {"grow_at": "growths_left"}
    """What says in the state how many times of an argument are still to come: a resumed run and a rewind find their
    stage by it."""

    def __init__(
        self,
        bake_resolution: int | None,
        grow_at: Times | None,
        initial_opacity: float,
        initial_brightness: float,
        **others: Times | None,
    ) -> None:
        super().__init__()
        check_arguments(
            bake_resolution=(
                bake_resolution,
                bake_resolution is None or 1 <= bake_resolution <= MAX_BAKE,
                f"in [1, {MAX_BAKE}]",
            ),
            initial_opacity=(initial_opacity, 0.0 < initial_opacity < 1.0, "> 0 and < 1"),
            initial_brightness=(initial_brightness, 0.0 < initial_brightness < 1.0, "> 0 and < 1"),
        )
        if grow_at and bake_resolution is None:
            raise ValueError(f"grow_at={grow_at}: only a baked grid grows; give bake_resolution too, or null here")
        self._final = bake_resolution
        growths = [] if bake_resolution is None else checked_growths(grow_at, bake_resolution)
        self._schedules = {"grow_at": growths, **{name: list(times or []) for name, times in others.items()}}
        self._to_come: dict[str, Times] = {}
        for name, given in {"grow_at": grow_at, **others}.items():
            if given is not None:
                self.register_buffer(self.STAGES[name], torch.tensor(len(self._schedules[name])))
        self._take_stage(self._schedules)
        # opacity of a step = 1 - exp(-softplus(raw)) = sigmoid(raw), so the bias is a plain logit.
        self.bias = nn.Buffer(torch.tensor([_logit(initial_opacity), _logit(1.0 - initial_brightness)]))

    @abstractmethod
    def numbers_held(self, points: int, device: str) -> int:
        """Numbers that so many points hold at a time for the gradient, besides their places and answers.

        Args:
            points: it is asked at.
            device: cpu or cuda.
        """

    @abstractmethod
    def raw(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 2"]:
        """What the network answers at world points, without the bias, in the precision of its weights."""

    @abstractmethod
    def _baked(self, size: int) -> Float[Tensor, "2 N N N"]:
        """The field at the centres of size^3 voxels, differentiable; anything finite where no sample in the unit ball
        reads a voxel."""

    @property
    def grow_at(self) -> Times:
        """When the grid still doubles."""
        return self._to_come["grow_at"]

    def forward(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """The field itself, also with `bake_resolution`; outside [-1, 1]^3 the values of the nearest point inside."""
        raw = self.raw(points.reshape(-1, 3)) + self.bias
        raw = raw.reshape(*points.shape[:-1], CHANNELS).to(points.dtype)
        return activated(raw)

    def dense(self) -> Float[Tensor, "2 N N N"] | None:
        """With `bake_resolution`, the field at the voxels' centres; differentiable."""
        return None if self.bake_resolution is None else self._baked(self.bake_resolution)

    def grow(self, steps_done: int, progress: float) -> bool:
        """When it is time, take the next stage, such as a grid of twice the resolution; the field itself stays."""
        left = {name: still_to_come(times, steps_done, progress) for name, times in self._to_come.items()}
        if all(len(times) == len(self._to_come[name]) for name, times in left.items()):
            return False
        self._take_stage(left)
        return True

    def _take_stage(self, to_come: dict[str, Times]) -> None:
        """What is baked with these times to come; the saved volume is built at that stage."""
        self._to_come |= {name: list(times) for name, times in to_come.items()}
        self.bake_resolution = None if self._final is None else coarser(self._final, len(self.grow_at))
        for name, times in to_come.items():
            if self.STAGES[name] in self._buffers:
                self.get_buffer(self.STAGES[name]).fill_(len(times))
                if name in self._init_args:  # a subclass may have settled it
                    self._init_args[name] = list(times)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stage = {}
        for name, times in self._schedules.items():
            left = state_dict.get(prefix + self.STAGES[name])
            if left is not None and self.STAGES[name] in self._buffers and 0 <= int(left) <= len(times):
                stage[name] = times[len(times) - int(left) :]
        if stage:
            self._take_stage(stage)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def check_arguments(**arguments: tuple[Any, bool, str]) -> None:
    """Fail on the first argument that is invalid: by its name, what was given, whether it is valid, what it must be.

    Raises:
        ValueError: it names the argument.
    """
    for name, (given, valid, wanted) in arguments.items():
        if not valid:
            raise ValueError(f"{name}={given}: must be {wanted}")


def activated(raw: Float[Tensor, "*P 2"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
    """Attenuation per world unit and absorbance, of raw values with their bias."""
    return F.softplus(raw[..., 0]) / REFERENCE_STEP, torch.sigmoid(raw[..., 1])


def in_cube(points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
    """Of each point the nearest in [-1, 1]^3; of what is not a number the middle."""
    return points.nan_to_num(0.0).clamp(-1.0, 1.0)


def points_at_once(device: str) -> int:
    """How many points go through a network at a time on a kind of device: on a CPU those whose layers fit the cache of
    a core, as they are computed faster than written to memory and read again."""
    return IN_CACHE if device == "cpu" else ON_DEVICE


def numbers_kept(points: int, of_each: int, device: str) -> int:
    """How many numbers `in_turn` keeps for the gradient at a time."""
    return of_each * (points if points * of_each <= MOST_KEPT else min(points, points_at_once(device)))


def in_turn(
    compute: Callable[..., tuple[Tensor, ...]], parts: Iterable[tuple[Tensor, ...]], points: int, of_each: int
) -> list[Tensor]:
    """What a network answers for parts of its points, one after the other.

    Args:
        compute: takes the tensors of a part, and returns one.
        parts: each of `points_at_once`.
        points: of all parts.
        of_each: numbers that each point holds for the gradient.
    """
    again = points * of_each > MOST_KEPT
    return [(computed_again(compute, *part) if again else compute(*part))[0] for part in parts]


def baked_in_ball(field: Field, size: int) -> Float[Tensor, "2 N N N"]:
    """The field at the centres of size^3 voxels, asked point by point; differentiable.

    Voxels that no sample in the unit ball reads are 0 and are not asked for.
    """
    like = field.like()
    index, centres = ball_voxels(size, str(like.device))
    centres = centres.to(computed(like).dtype)
    grid = centres.new_zeros(CHANNELS, size**3)
    if torch.is_grad_enabled():
        grid = grid.index_copy(1, index, torch.stack(field(centres)))
    else:
        for places, part in zip(index.split(POINTS_AT_ONCE), centres.split(POINTS_AT_ONCE), strict=True):
            grid.index_copy_(1, places, torch.stack(field(part)))
    return grid.reshape(CHANNELS, size, size, size)


def slabs_of(size: int, device: str) -> list[tuple[slice, slice]]:
    """A grid of size^3 voxels, a few slices at a time: which slices (z), and of them the rows and columns (y and x
    alike) around the ball."""
    thick = max(1, points_at_once(device) // size**2)
    slabs = [slice(begin, min(begin + thick, size)) for begin in range(0, size, thick)]
    return [(slab, _around_ball(size, slab)) for slab in slabs]


def joined_slabs(found: list[Tensor], slabs: list[tuple[slice, slice]]) -> Float[Tensor, "2 N N N"]:
    """The grid of which `slabs_of` found these values; other voxels, which no sample in the unit ball reads, are 0."""
    size = slabs[-1][0].stop
    margins = [(square.start, size - square.stop) for _, square in slabs]
    return torch.cat([F.pad(part, (*margin, *margin)) for part, margin in zip(found, margins, strict=True)], dim=1)


def _around_ball(size: int, slab: slice) -> slice:
    """Of the slices of a size^3 grid the rows, and the columns, that some sample in the unit ball reads.

    As in `ball_voxels`: a voxel is read up to one voxel away.
    """
    nearest = (voxel_centres(size).abs() - 2.0 / size).clamp_min(0.0).square()
    rows = (nearest + nearest[slab].min() < 1.0).nonzero()[:, 0].tolist() or [size // 2]
    return slice(rows[0], rows[-1] + 1)


@lru_cache(maxsize=4)
def ball_voxels(size: int, device: str) -> tuple[Int[Tensor, " P"], Float[Tensor, "P 3"]]:
    """The voxels of a size^3 grid that some sample in the unit ball reads, as flat index and centre (xyz).

    A voxel is read up to one voxel away, so these are the voxels whose cube of twice the edge meets the ball.
    """
    with torch.inference_mode(False):  # what is kept must serve a training later on
        return _ball_voxels(size, device)


def _ball_voxels(size: int, device: str) -> tuple[Int[Tensor, " P"], Float[Tensor, "P 3"]]:
    axis = voxel_centres(size)
    nearest = (axis.abs() - 2.0 / size).clamp_min(0.0).square()
    plane = (nearest[:, None] + nearest).flatten()
    slices = [k * size**2 + (depth + plane < 1.0).nonzero()[:, 0] for k, depth in enumerate(nearest.tolist())]
    index = torch.cat(slices)
    centres = torch.stack([axis[index % size], axis[index // size % size], axis[index // size**2]], dim=-1)
    return index.to(device), centres.float().to(device)


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))
