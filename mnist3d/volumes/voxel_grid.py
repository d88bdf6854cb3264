"""The dense backend: a voxel grid, optionally parametrised as a sum of coarser grids."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..formats.reading import read_voxels
from ..geometry.arrays import ArrayOrList, as_tensor, computed
from ..geometry.grids import grid_size, voxel_centres
from ..geometry.on_device import made_once
from .base import Field, Volume, grid_words
from .growth import checked_growths, coarser, still_to_come
from .initial import scaled_normal
from .legacy_3dmnist import EMITS, MAX_RAW, ORIGINAL_FRAME, read_3dmnist
from .resampling import ask, drawn, resampled, undrawn

POINTS_AT_ONCE = 2**16  # bounds the memory of a field with a network in it
# Coarse until the nearest-image loss begins (`nearest_image.start`), then finer: research/log.md.
DEFAULT_RESOLUTION, DEFAULT_GROWTH = 64, [0.3]
STARTING_RAW = 8.0  # beyond, sigmoid and softplus pass on no gradient that a step could use


class VoxelGrid(Volume):
    """Two channels on a grid of voxels that fills [-1, 1]^3.

        raw         = bias + sum over the levels of upsample(level)
        attenuation = softplus(raw[0]) / voxel_step,   voxel_step = 2 / max(resolution)
        absorbance  = sigmoid(raw[1])

    The raw attenuation is per voxel step, so one learning rate works for every resolution. Through the coarse levels
    one gradient step can change a whole region; without them the volume fills with thin speckle.

    Args:
        resolution: Voxels along each edge, or along (Z, Y, X), 1 to 1024. null: the default grid, which starts at 32
            and doubles to 64 at .3 of the run.
        pyramid: Coarser grids that are added to this one, as shares of its resolution, each > 0 and < 1; null: [0.25,
            0.5]. []: none.
        grow_at: When the grid doubles during training: ascending values of progress in (0, 1), or ascending steps >= 1.
            With n values it starts at resolution / 2^n. null or []: never; but if resolution is null too, null is
            [0.3].
        initial_opacity: Mean opacity of one voxel step at the start, in (0, 1).
        initial_brightness: Mean of 1 - absorbance at the start, in (0, 1).
        initial_noise: Standard deviation of the raw values of the finest level at the start, >= 0.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        resolution: int | list[int] | None = None,
        pyramid: list[float] | None = None,
        initial_opacity: float = 0.02,
        initial_brightness: float = 0.27,
        initial_noise: float = 0.3,
        grow_at: list[int | float] | None = None,
    ) -> None:
        super().__init__()
        if resolution is None:
            resolution, grow_at = DEFAULT_RESOLUTION, [*DEFAULT_GROWTH] if grow_at is None else grow_at
            self._init_args |= {"resolution": resolution, "grow_at": grow_at}  # as another version's may differ
        self._final = grid_size(resolution)
        shares = [0.25, 0.5] if pyramid is None else list(pyramid)
        if not all(0.0 < share < 1.0 for share in shares):
            raise ValueError(f"pyramid={pyramid}: must be shares of the resolution, each > 0 and < 1")
        for name, value in (("initial_opacity", initial_opacity), ("initial_brightness", initial_brightness)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name}={value}: must be > 0 and < 1")
        if not 0.0 <= initial_noise < math.inf:
            raise ValueError(f"initial_noise={initial_noise}: must be finite and >= 0")
        self._shares = shares
        self.grow_at = self._schedule = checked_growths(grow_at, max(self._final))
        self.resolution = self._stage(len(self.grow_at))
        # opacity of a step = 1 - exp(-softplus(raw)) = sigmoid(raw), so the bias is a plain logit.
        bias = [_logit(initial_opacity), _logit(1.0 - initial_brightness)]
        self.bias = nn.Buffer(torch.tensor(bias).reshape(2, 1, 1, 1))
        self.levels = self._levels()
        with torch.no_grad():
            self.levels[-1].copy_(scaled_normal(initial_noise, 2, *self.resolution))

    def _stage(self, growths_left: int) -> tuple[int, ...]:
        """The resolution with so many growths to come."""
        return tuple(coarser(n, growths_left) for n in self._final)

    def _levels(self) -> nn.ParameterList:
        """Zeros at the present resolution, coarse to fine."""
        sizes = [[max(1, round(n * share)) for n in self.resolution] for share in self._shares]
        return nn.ParameterList(self.bias.new_zeros(2, *size) for size in [*sizes, self.resolution])

    def extra_repr(self) -> str:
        """Resolution, what it will grow to, and the range of attenuation."""
        growing = f", growing to {self._final}" if self.grow_at else ""
        return grid_words(self, self.resolution) + growing

    @property
    def voxel_step(self) -> float:
        """Edge of a voxel along the finest axis, world units."""
        return 2.0 / max(self.resolution)

    def dense(self) -> Float[Tensor, "2 Z Y X"]:
        """The grid: attenuation per world unit and absorbance; differentiable in the parameters."""
        raw = computed(self.bias) + computed(self.levels[-1])
        for level in list(self.levels)[:-1]:
            raw = raw + _upsample(computed(level), self.resolution)
        raw_attenuation, raw_absorbance = raw.unbind()  # whose gradients are put together at once
        return torch.stack([F.softplus(raw_attenuation) / self.voxel_step, torch.sigmoid(raw_absorbance)])

    def forward(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """Between the voxels' centres the opacity of a voxel step is interpolated, as the renderer does; beyond them
        the outermost values go on."""
        return ask(drawn(self.dense()), points)

    def grow(self, steps_done: int, progress: float) -> bool:
        """Double the resolution when it is time (`grow_at`). The views stay the same.

        Between its voxels a grid is drawn with interpolated opacity, so it is the opacity of the old step that is
        interpolated. All of it goes into the finest level, the coarser ones begin at zero again.
        """
        left = still_to_come(self.grow_at, steps_done, progress)
        if len(left) == len(self.grow_at):
            return False
        with torch.no_grad():
            values, old_step = drawn(self.dense()), self.voxel_step
            self._grown_to(left)
            attenuation, absorbance = undrawn(_upsample(values, self.resolution), old_step)
            raw = torch.stack([_softplus_inverse(attenuation * self.voxel_step), torch.logit(absorbance)])
            self.levels[-1].copy_(raw.clamp(-MAX_RAW, MAX_RAW) - self.bias)
        return True

    def _grown_to(self, grow_at: list[int | float]) -> None:
        """Take the shape of the stage with these growths to come; the saved volume is built at that stage."""
        self.grow_at = list(grow_at)
        self._init_args["grow_at"] = list(grow_at)
        self.resolution = self._stage(len(grow_at))
        wanted = [level.requires_grad for level in self.levels]
        self.levels = self._levels()
        for level, wants_gradient in zip(self.levels, wanted, strict=True):
            level.requires_grad_(wants_gradient)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """A state of a later or earlier stage brings its resolution with it: how a grown run resumes and rewinds."""
        finest = state_dict.get(f"{prefix}levels.{len(self.levels) - 1}")
        if finest is not None and tuple(finest.shape[1:]) != self.resolution:
            for growths in range(len(self._schedule) + 1):
                if self._stage(len(self._schedule) - growths) == tuple(finest.shape[1:]):
                    self._grown_to(self._schedule[growths:])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @classmethod
    def from_3dmnist(cls, path: str | Path, frame: int = ORIGINAL_FRAME, emits: str = EMITS[0]) -> "VoxelGrid":
        """The sculpture in a `volume.pt` of the first 3DMNIST, in the middle of a cube of `frame` voxels.

        `AbsorptionRenderer(frame)` shows what the original's renderer showed, apart from what lies outside the unit
        ball; docs/conventions.md says which axis is which.

        Args:
            path: the file; no code in it is run.
            frame: Voxels along each edge of the cube, from the sculpture's own number; 40 as the original's views.
            emits: What is multiplied with the intercepted light: "1 - absorbance" in the original's present code,
                "absorbance" in that of its first commit, with which its own volume.pt was published.

        Raises:
            VolumeFileError: missing or damaged file, or something else in it.
            ValueError: another `emits`, a frame that the sculpture does not fit into.
        """
        raw = read_3dmnist(path, frame, emits)
        volume = cls(frame, pyramid=[], initial_noise=0.0)
        with torch.no_grad():
            volume.bias.zero_()
            volume.levels[0].copy_(raw)
        return volume

    def take_voxels(self, grid: Float[Tensor, "2 Z Y X"]) -> None:
        """Show what a grid shows, resampled to the resolution; no growth is left, as a coarse start would blur it.

        Raw values end at +-8, where a step's gradient ends.
        """
        self._grown_to([])
        attenuation, absorbance = resampled(grid.double().cpu(), self.resolution)
        raw = torch.stack([_softplus_inverse(attenuation * self.voxel_step), torch.logit(absorbance)])
        with torch.no_grad():
            self.levels[-1].copy_(raw.clamp(-STARTING_RAW, STARTING_RAW).to(self.bias) - self.bias)

    @classmethod
    @torch.no_grad()
    def from_field(cls, field: Field, resolution: int | Sequence[int]) -> "VoxelGrid":
        """A grid without coarser levels whose voxels hold a field's attenuation and absorbance at their centres.

        No filter comes before the sampling. A voxel outside the unit ball that a view can still interpolate with (its
        centre less than a voxel's diagonal outside) holds what the field says at the nearest point of the sphere;
        voxels farther out are empty.

        Args:
            field: any field; evaluated on its device and in its precision, a part at a time.
            resolution: voxels along each edge, or along (Z, Y, X); 1 to 1024.

        Returns:
            A grid on the CPU.

        Raises:
            ValueError: a resolution out of range, or a field that is not finite or out of its range.
        """
        size = grid_size(resolution)
        centres = [voxel_centres(n) for n in size]
        diagonal = sum((2.0 / n) ** 2 for n in size) ** 0.5
        array = torch.zeros(2, size[0] * size[1] * size[2], device="cpu")
        with asked_for_values(field) as asked:
            for voxels in torch.arange(array.shape[1], device=array.device).split(POINTS_AT_ONCE):
                k, j, i = torch.unravel_index(voxels, size)
                points = torch.stack([centres[2][i], centres[1][j], centres[0][k]], dim=-1)
                distance = points.norm(dim=-1)
                seen = distance < 1.0 + diagonal
                points = (points / distance.clamp_min(1.0)[:, None])[seen].to(field.like())
                attenuation, absorbance = asked(points)
                array[0, voxels[seen]] = attenuation.float().cpu()
                array[1, voxels[seen]] = absorbance.float().cpu()
        return cls.from_array(array.reshape(2, *size))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        negative: str = "refuse",
        not_finite: str = "refuse",
        threshold: float | None = None,
        percentile: float | None = None,
    ) -> "VoxelGrid":
        """A grid without coarser levels from a voxel file, of mnist3d or of another program; see `formats.read_voxels`.

        Args:
            path: the file; after a # stand picks and the options below: "scan.nii.gz#frame=3,negative=clip".
            negative: "refuse", or "clip": voxels < 0 are empty, as is noise around 0 (cryo-EM, CT).
            not_finite: "refuse", or "empty": NaN and infinite voxels are empty, as outside a mask.
            threshold: Voxels below it are empty; >= 0, in the values of the file, such as a contour level. None: none.
            percentile: In (0, 100]: the value at this percentile of the voxels > 0 becomes an attenuation of 2 per
                world unit. None: the values are attenuation per unit of length of the file.

        Raises:
            VolumeFileError: missing or damaged file, unknown suffix, no reader installed, or values out of range.
            ValueError: an option with a value that is not allowed.
        """
        return cls.from_array(
            read_voxels(path, negative=negative, not_finite=not_finite, threshold=threshold, percentile=percentile)
        )

    @classmethod
    def from_array(cls, array: Tensor | ArrayOrList) -> "VoxelGrid":
        """A grid without coarser levels that holds exactly these values.

        A value at the border of its range (attenuation 0, absorbance 0 or 1) is kept, and gets no gradient.

        Args:
            array: (Z, Y, X): attenuation per world unit, >= 0, and nothing is absorbed; or (2, Z, Y, X): attenuation,
                and absorbance in [0, 1]. NumPy or torch.

        Raises:
            ValueError: wrong shape, values outside their range or not finite.
        """
        values = as_tensor("array", array, torch.float64).detach().cpu()
        if values.ndim not in (3, 4) or (values.ndim == 4 and len(values) != 2) or 0 in values.shape:
            raise ValueError(
                f"array has shape {tuple(values.shape)}: it must be (Z, Y, X), attenuation alone, or (2, Z, Y, X), "
                "attenuation and absorbance, none of them 0"
            )
        attenuation, absorbance = values if values.ndim == 4 else (values, values.new_zeros(()).expand(values.shape))
        for name, channel, most in (("attenuation", attenuation, math.inf), ("absorbance", absorbance, 1.0)):
            low, high = float(channel.min()), float(channel.max())  # nan if there is any
            if not (low >= 0.0 and high <= most and high < math.inf):
                wanted = "finite and >= 0 per world unit" if name == "attenuation" else "in [0, 1]"
                raise ValueError(f"{name} lies in [{low:g}, {high:g}]: it must be {wanted}")
        volume = cls(resolution=list(attenuation.shape), pyramid=[], initial_noise=0.0)
        with torch.no_grad():
            volume.bias.zero_()
            for layer, (dense, lost) in enumerate(zip(attenuation, absorbance, strict=True)):  # in double precision
                volume.levels[0][0, layer] = _softplus_inverse(dense.double() * volume.voxel_step)
                volume.levels[0][1, layer] = torch.logit(lost.double())
        return volume

    def to_array(self) -> np.ndarray:
        """(2, Z, Y, X) float32: attenuation per world unit, absorbance."""
        with torch.no_grad():
            return self.dense().float().cpu().numpy()


def _upsample(level: Float[Tensor, "C z y x"], size: tuple[int, ...]) -> Float[Tensor, "C Z Y X"]:
    """F.interpolate(mode="trilinear"), as a matrix product an axis: three times as fast on the CPU."""
    depth, height, width = (
        _linear(old, new, level.device, level.dtype) for old, new in zip(level.shape[1:], size, strict=True)
    )
    planes = height @ level @ width.mT
    return (depth @ planes.flatten(2)).unflatten(2, planes.shape[2:])


@made_once
def _linear(old: int, new: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "new old"]:
    """The matrix that interpolates along an axis."""
    unit = torch.eye(old, dtype=dtype, device=device)
    return F.interpolate(unit[None], size=new, mode="linear", align_corners=False)[0].mT


def _softplus_inverse(value: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    return value + torch.log(-torch.expm1(-value))


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))


@contextmanager
def asked_for_values(field: Field) -> Iterator[Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """The field as it is in evaluation; the grid of a VoxelGrid is computed once, not once a part."""
    was_training = isinstance(field, Volume) and field.training
    if isinstance(field, Volume):
        field.eval()
    try:
        # A subclass with a forward of its own is asked that.
        if isinstance(field, VoxelGrid) and type(field).forward is VoxelGrid.forward:
            yield partial(ask, drawn(field.dense()))
        else:
            yield field
    finally:
        if isinstance(field, Volume):
            field.train(was_training)
