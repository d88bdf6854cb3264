"""The dense backend: a voxel grid, optionally parametrised as a sum of coarser grids."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn

from .base import Volume

STARTING_RAW = 8.0  # beyond, sigmoid and softplus pass on no gradient that a step could use
MAX_RESOLUTION = 1024  # 1024^3 of two float32 channels is 8 GiB: beyond it is a typing error


class VoxelGrid(Volume):
    """Two channels on a grid of voxels that fills [-1, 1]^3.

        raw         = bias + sum over the levels of upsample(level)
        attenuation = softplus(raw[0]) / voxel_step,   voxel_step = 2 / max(resolution)
        absorbance  = sigmoid(raw[1])

    The raw attenuation counts in voxel steps, so one learning rate serves every resolution. The coarse
    levels let one gradient step move a whole region; without them thin speckle wins.

    Args:
        resolution: Voxels along each edge, or along (Z, Y, X); 1 to 1024.
        pyramid: Coarser levels that are added, as shares of the resolution in (0, 1); empty for a bare grid.
        initial_opacity: Mean opacity of one voxel step at the start, in (0, 1).
        initial_brightness: Mean of 1 - absorbance at the start, in (0, 1).
        initial_noise: Standard deviation of the finest level's raw values at the start.
        init: Voxel file to start from (.npz, .nrrd, .nii.gz, .mrc, .vti, .vdb), resampled to the resolution; the
            initial_* above are then not used. A saved volume does not read it again.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        resolution: int | list[int] = 48,
        pyramid: list[float] | None = None,
        initial_opacity: float = 0.02,
        initial_brightness: float = 0.27,
        initial_noise: float = 0.3,
        init: str | None = None,
    ) -> None:
        super().__init__()
        size = [resolution] * 3 if isinstance(resolution, int) else list(resolution)
        shares = [0.25, 0.5] if pyramid is None else list(pyramid)
        if len(size) != 3 or not all(isinstance(n, int) and 1 <= n <= MAX_RESOLUTION for n in size):
            raise ValueError(f"resolution={resolution}: allowed are 1 to {MAX_RESOLUTION}, one number or (Z, Y, X)")
        if not all(0.0 < share < 1.0 for share in shares):
            raise ValueError(f"pyramid={pyramid}: every level must be a share of the resolution between 0 and 1")
        for name, value in (("initial_opacity", initial_opacity), ("initial_brightness", initial_brightness)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name}={value}: allowed are values between 0 and 1")
        if not 0.0 <= initial_noise < math.inf:
            raise ValueError(f"initial_noise={initial_noise}: allowed are values >= 0")
        self.resolution = tuple(size)
        coarse = [[max(1, round(n * share)) for n in size] for share in shares]
        # opacity of a step = 1 - exp(-softplus(raw)) = sigmoid(raw), so the bias is a plain logit.
        bias = [_logit(initial_opacity), _logit(1.0 - initial_brightness)]
        self.bias = nn.Buffer(torch.tensor(bias).reshape(2, 1, 1, 1))
        self.levels = nn.ParameterList(torch.zeros(2, *level) for level in coarse)
        self.levels.append(initial_noise * torch.randn(2, *size))
        if init is not None:
            self._init_args["init"] = None  # from now on the weights say it all
            self._start_from(init)

    @property
    def voxel_step(self) -> float:
        """Edge of a voxel along the finest axis, world units."""
        return 2.0 / max(self.resolution)

    def dense(self) -> Float[Tensor, "2 Z Y X"]:
        """The grid: attenuation per world unit and absorbance; differentiable in the parameters."""
        raw = self.bias + self.levels[-1]
        for level in list(self.levels)[:-1]:
            raw = raw + _upsample(level, self.resolution)
        return torch.stack([F.softplus(raw[0]) / self.voxel_step, torch.sigmoid(raw[1])])

    def forward(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """Trilinear interpolation between the voxels' centres; beyond them the outermost values go on."""
        where = points.reshape(1, 1, 1, -1, 3)
        if where.numel() == 0:
            empty = points.sum(dim=-1)
            return empty, empty
        grid = self.dense().to(points.dtype)
        values = F.grid_sample(grid[None], where, mode="bilinear", padding_mode="border", align_corners=False)
        attenuation, absorbance = values.reshape(2, *points.shape[:-1])
        return attenuation, absorbance

    def _start_from(self, path: str) -> None:
        from .readers import read_voxels

        try:
            values = torch.from_numpy(read_voxels(path))
        except ValueError as error:
            raise ValueError(f"init={error}") from None
        mode = "area" if max(values.shape[1:]) > max(self.resolution) else "trilinear"
        attenuation, absorbance = F.interpolate(values[None], size=self.resolution, mode=mode)[0]
        steps = attenuation.double() * self.voxel_step
        raw = torch.stack([steps + torch.log(-torch.expm1(-steps)), torch.logit(absorbance.double())])
        with torch.no_grad():
            self.levels[-1].copy_(raw.clamp(-STARTING_RAW, STARTING_RAW) - self.bias)

    @classmethod
    def load(cls, path: str | Path) -> "VoxelGrid":
        """A bare grid of a voxel file, ours or another tool's; see `readers.read_voxels`.

        Args:
            path: .npz, .nrrd, .nii.gz, .nii, .mrc, .vti or .vdb.

        Raises:
            VolumeFileError: missing or damaged file, unknown suffix, no reader installed, or values out of range.
        """
        from .readers import read_voxels

        return cls.from_array(read_voxels(path))

    @classmethod
    def from_array(cls, array: ArrayLike | Tensor) -> "VoxelGrid":
        """A bare grid that holds exactly these values.

        A value at the border of its range (attenuation 0, absorbance 0 or 1) is kept, and gets no gradient.

        Args:
            array: (2, Z, Y, X): attenuation per world unit, >= 0, and absorbance in [0, 1].

        Raises:
            ValueError: wrong shape, values outside their range or not finite.
        """
        values = torch.as_tensor(np.asarray(array) if not isinstance(array, Tensor) else array).detach()
        if values.ndim != 4 or values.shape[0] != 2 or 0 in values.shape:
            raise ValueError(f"array has shape {tuple(values.shape)}: it must be (2, Z, Y, X), none of them 0")
        values = values.to("cpu", torch.float64)
        if not bool(values.isfinite().all()) or float(values[0].min()) < 0:
            raise ValueError("attenuation (array[0]) must be finite and >= 0; absorbance (array[1]) finite")
        if float(values[1].min()) < 0 or float(values[1].max()) > 1:
            raise ValueError(
                f"absorbance (array[1]) lies in [{float(values[1].min()):g}, {float(values[1].max()):g}]: "
                "allowed is [0, 1]"
            )
        volume = cls(resolution=list(values.shape[1:]), pyramid=[], initial_noise=0.0)
        steps = values[0] * volume.voxel_step
        raw = torch.stack([steps + torch.log(-torch.expm1(-steps)), torch.logit(values[1])])
        with torch.no_grad():
            volume.bias.zero_()
            volume.levels[0].copy_(raw)
        return volume

    def to_array(self) -> np.ndarray:
        """(2, Z, Y, X) float32: attenuation per world unit, absorbance."""
        with torch.no_grad():
            return self.dense().float().cpu().numpy()


def _upsample(level: Float[Tensor, "2 z y x"], size: tuple[int, ...]) -> Float[Tensor, "2 Z Y X"]:
    """F.interpolate(mode="trilinear"), as a matrix product an axis: three times as fast on the CPU."""
    depth, height, width = (_linear(level, axis, extent) for axis, extent in enumerate(size, start=1))
    planes = height @ level @ width.mT
    return (depth @ planes.flatten(2)).unflatten(2, planes.shape[2:])


def _linear(level: Float[Tensor, "2 z y x"], axis: int, extent: int) -> Float[Tensor, "to from"]:
    """The matrix that interpolates along an axis."""
    unit = torch.eye(level.shape[axis], dtype=level.dtype, device=level.device)
    return F.interpolate(unit[None], size=extent, mode="linear", align_corners=False)[0].mT


def _logit(share: float) -> float:
    return math.log(share / (1.0 - share))
