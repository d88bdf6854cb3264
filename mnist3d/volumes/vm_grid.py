"""A dense grid in far fewer numbers: each channel a sum of plane-times-line products (TensoRF)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.arrays import computed
from ..geometry.grids import grid_size
from .base import Volume, grid_words
from .initial import scaled_normal

AXES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))  # of (Z, Y, X): the line's axis, then the plane's two


class VMGrid(Volume):
    """Vector-matrix decomposition of the raw values on a grid that fills [-1, 1]^3.

        raw         = bias + sum over the axes and components of line(one axis) * plane(the other two)
        attenuation = softplus(raw[0]) / voxel_step,   voxel_step = 2 / max(resolution)
        absorbance  = sigmoid(raw[1])

    Between voxel centres lines are interpolated linearly and planes bilinearly, so raw is trilinear there.
    It has O(N^2) weights instead of O(N^3). The whole grid is three matrix products, so it is rendered as a grid.

    Args:
        resolution: Voxels along each edge, or along (Z, Y, X), 1 to 1024.
        components: Number of line-times-plane products for each axis and channel, 1 to 1024.
        initial_opacity: Opacity of one voxel step at the start, in (0, 1).
        initial_brightness: 1 - absorbance at the start, in (0, 1).
        initial_noise: Standard deviation of the sum of products at the start, > 0.

    Raises:
        ValueError: a value outside its range.

    Source:
        Chen et al., "TensoRF: Tensorial Radiance Fields" (2022), eq. 3 and 10.
    """

    def __init__(
        self,
        resolution: int | list[int] = 48,
        components: int = 8,
        initial_opacity: float = 0.02,
        initial_brightness: float = 0.27,
        initial_noise: float = 0.3,
    ) -> None:
        super().__init__()
        self.resolution = grid_size(resolution)
        if not 1 <= components <= 1024:
            raise ValueError(f"components={components}: must be in [1, 1024]")
        for name, value in (("initial_opacity", initial_opacity), ("initial_brightness", initial_brightness)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name}={value}: must be > 0 and < 1")
        if not 0.0 < initial_noise < math.inf:
            raise ValueError(f"initial_noise={initial_noise}: must be finite and > 0; from 0 no product could grow")
        # opacity of a step = 1 - exp(-softplus(raw)) = sigmoid(raw), so the bias is a plain logit.
        bias = torch.tensor([initial_opacity, 1.0 - initial_brightness])
        bias = bias if bias.is_meta else torch.logit(bias)  # as in `scaled_normal`
        self.bias = nn.Buffer(bias.reshape(2, 1, 1, 1))
        spread = (initial_noise / math.sqrt(3 * components)) ** 0.5  # of a line's and of a plane's values
        sizes = [[self.resolution[axis] for axis in axes] for axes in AXES]
        self.lines = nn.ParameterList(scaled_normal(spread, 2, components, n) for n, _, _ in sizes)
        self.planes = nn.ParameterList(scaled_normal(spread, 2, components, n, m) for _, n, m in sizes)

    def extra_repr(self) -> str:
        """Resolution, products and the range of attenuation."""
        return f"{grid_words(self, self.resolution)}, components={self.lines[0].shape[1]}"

    @property
    def voxel_step(self) -> float:
        """Edge of a voxel along the finest axis, world units."""
        return 2.0 / max(self.resolution)

    def dense(self) -> Float[Tensor, "2 Z Y X"]:
        """The grid: attenuation per world unit and absorbance; differentiable in the parameters."""
        raw = computed(self.bias)
        for axis, (line, plane) in enumerate(zip(self.lines, self.planes, strict=True)):
            product = computed(line).mT @ computed(plane).flatten(2)  # (2, line, plane)
            raw = raw + product.unflatten(2, plane.shape[2:]).movedim(1, axis + 1)
        return self._activated(raw)

    def forward(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """The products of what the lines and planes hold there; beyond the outermost voxels these values go on."""
        bias = computed(self.bias)
        where = points.reshape(-1, 3).to(bias.dtype).flip(-1)  # zyx
        raw = bias.reshape(2, 1).expand(2, len(where))
        if len(where) == 0:  # grid_sample refuses an empty batch
            empty = points.sum(dim=-1)
            return empty, empty
        for axes, line, plane in zip(AXES, self.lines, self.planes, strict=True):
            along, down, right = (where[:, axis] for axis in axes)
            on_line = _sample(computed(line)[..., None], torch.stack([torch.zeros_like(along), along], dim=-1))
            on_plane = _sample(computed(plane), torch.stack([right, down], dim=-1))
            raw = raw + (on_line * on_plane).sum(dim=1)
        attenuation, absorbance = self._activated(raw).to(points.dtype).reshape(2, *points.shape[:-1])
        return attenuation, absorbance

    def _activated(self, raw: Float[Tensor, "2 ..."]) -> Float[Tensor, "2 ..."]:
        return torch.stack([F.softplus(raw[0]) / self.voxel_step, torch.sigmoid(raw[1])])


def _sample(planes: Float[Tensor, "2 R h w"], where: Float[Tensor, "P 2"]) -> Float[Tensor, "2 R P"]:
    """Bilinear between centres, at (x, y) in [-1, 1]^2."""
    places = where.expand(2, 1, -1, -1)
    return F.grid_sample(planes, places, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]
