"""The tri-plane backend: features on three planes, and a small network that decodes them."""

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.arrays import computed
from ..geometry.grids import voxel_centres
from ..kernels.absorption import sample_grid
from .baking import (
    CHANNELS,
    BakedField,
    Times,
    activated,
    check_arguments,
    in_cube,
    in_turn,
    joined_slabs,
    numbers_kept,
    points_at_once,
    slabs_of,
)
from .initial import scaled_normal

MAX_RESOLUTION = 1024
PLANES = ((1, 0), (2, 0), (2, 1))  # axes of (x, y, z) that run along the rows and the columns of each plane
# Rates as shares of trainer.volume_rate, which suits the raw values of voxels.
PLANES_RATE, DECODER_RATE = 0.25, 0.1
Combination = Literal["sum", "product"]


class TriPlane(BakedField):
    """Features on three planes that cross in the middle, and a small network that decodes them at each point.

        features    = xy + xz + yz                              combine=sum, each plane read at the point's projection
                      (1 + xy) * (1 + xz) * (1 + yz) - 1        combine=product
        raw         = bias + decoder(features)                  ReLU between layers, no biases
        attenuation = softplus(raw[0]) / (2 / 48)
        absorbance  = sigmoid(raw[1])

    A plane is bilinear between the centres of its cells; beyond the outermost their values go on. It has O(N^2)
    weights. Rendered along rays, or, with `bake_resolution`, as the grid of its values at the voxels' centres.

    Args:
        resolution: Cells along each edge of the planes, 1 to 1024.
        channels: Features in each cell, 1 to 256.
        combine: How the features of the three planes become those of a point: sum (EG3D), or product (K-planes, of
            planes that start around 1).
        hidden_dim: Width of the decoder's hidden layers, 1 to 256.
        num_layers: Number of linear layers of the decoder, 1 to 8; the last one is the output. 1: a linear decoder.
        bake_resolution: Evaluate the field once per step on a grid with this many voxels along each edge, 1 to 256, and
            render that grid. null: evaluate the field along the rays.
        grow_at: When the grid of bake_resolution doubles during training: ascending values of progress in (0, 1), or
            ascending steps >= 1. With n values it starts at bake_resolution / 2^n. null: never.
        initial_opacity: Opacity of a step of 2/48 world units at the start, > 0 and < 1.
        initial_brightness: Mean of 1 - absorbance at the start, in (0, 1).
        initial_noise: Standard deviation of the planes' values at the start, >= 0.

    Raises:
        ValueError: a value outside its range.

    Source:
        Chan et al., "Efficient geometry-aware 3D generative adversarial networks" (EG3D, 2022), section 4.1; the
        product: Fridovich-Keil et al., "K-planes: explicit radiance fields in space, time, and appearance" (2023),
        eq. 2. There planes are multiplied as they are; here 1 is added to each, so that planes of 0 are the start, and
        1 is taken off the product.
    """

    def __init__(
        self,
        resolution: int = 32,
        channels: int = 16,
        combine: Combination = "sum",
        hidden_dim: int = 32,
        num_layers: int = 2,
        bake_resolution: int | None = None,
        initial_opacity: float = 0.02,
        initial_brightness: float = 0.27,
        initial_noise: float = 0.3,
        grow_at: Times | None = None,
    ) -> None:
        super().__init__(bake_resolution, grow_at, initial_opacity, initial_brightness)
        check_arguments(
            resolution=(resolution, 1 <= resolution <= MAX_RESOLUTION, f"in [1, {MAX_RESOLUTION}]"),
            channels=(channels, 1 <= channels <= 256, "in [1, 256]"),
            combine=(combine, combine in get_args(Combination), f"one of {', '.join(get_args(Combination))}"),
            hidden_dim=(hidden_dim, 1 <= hidden_dim <= 256, "in [1, 256]"),
            num_layers=(num_layers, 1 <= num_layers <= 8, "in [1, 8]"),
            initial_noise=(initial_noise, 0.0 <= initial_noise < math.inf, "finite and >= 0"),
        )
        self.combine = combine
        self.planes = nn.Parameter(scaled_normal(initial_noise, len(PLANES), channels, resolution, resolution))
        sizes = [channels, *[hidden_dim] * (num_layers - 1), CHANNELS]
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        self.weights = nn.ParameterList(scaled_normal(math.sqrt(2.0 / shape[1]), *shape) for shape in shapes)

    def extra_repr(self) -> str:
        """Size of the planes, how they are combined, and the grid that is baked."""
        _, channels, resolution, _ = self.planes.shape
        size = f"3 planes of {resolution} x {resolution} cells, {channels} channels, {self.combine}"
        return f"{size}, bake_resolution={self.bake_resolution}"

    def numbers_held(self, points: int, device: str) -> int:
        """What the planes hold there, and the decoder's hidden layers."""
        return numbers_kept(points, self._of_each, device)

    @property
    def _of_each(self) -> int:
        return len(PLANES) * self.planes.shape[1] + 2 * sum(weight.shape[0] for weight in self.weights)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The planes and the decoder."""
        return [{"params": [self.planes], "rate": PLANES_RATE}, {"params": list(self.weights), "rate": DECODER_RATE}]

    def raw(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 2"]:
        """What the decoder answers at world points, without the bias.

        Gradients:
            To the parameters and to the points.
        """
        planes, weights = computed(self.planes), [computed(weight) for weight in self.weights]
        if len(points) == 0:  # grid_sample refuses an empty batch
            return points.new_zeros(0, CHANNELS) + 0.0 * (points.sum() + planes.sum())

        def answers(where: Float[Tensor, "P 3"]) -> tuple[Float[Tensor, "P 2"]]:
            places = [torch.stack([where[:, column], where[:, row]], dim=-1) for row, column in PLANES]
            read = [
                sample_grid(plane, place[None, None])[0, :, 0].mT for plane, place in zip(planes, places, strict=True)
            ]
            return (_decoded(F.linear(self._combined(*read), weights[0]), weights),)

        parts = in_cube(points).to(planes.dtype).split(points_at_once(points.device.type))
        return torch.cat(in_turn(answers, zip(parts), len(points), self._of_each))

    def _baked(self, size: int) -> Float[Tensor, "2 N N N"]:
        """At the centres of voxels that lie in rows, planes are read in rows: once a row, not once a voxel.

        A few slices at a time, and of each the square around the ball; the other voxels are 0.
        """
        planes, weights = computed(self.planes), [computed(weight) for weight in self.weights]
        rows = _interpolation(size, planes.shape[-1]).to(planes)
        read = (rows @ planes @ rows.mT).movedim(1, -1)
        if self.combine == "sum":  # so is the first layer
            read = F.linear(read, weights[0])
        xy, xz, yz = read.unbind()  # (y, x, C), (z, x, C), (z, y, C)

        def answers(xy: Tensor, xz: Tensor, yz: Tensor) -> tuple[Tensor]:
            hidden = self._combined(xy, xz[:, None], yz[:, :, None])
            if self.combine == "product":
                hidden = F.linear(hidden, weights[0])
            return (torch.stack(activated(_decoded(hidden, weights) + self.bias)),)

        slabs = slabs_of(size, planes.device.type)
        parts = ((xy[square, square], xz[slab, square], yz[slab, square]) for slab, square in slabs)
        return joined_slabs(in_turn(answers, parts, size**3, self._of_each), slabs)

    def _combined(self, xy: Tensor, xz: Tensor, yz: Tensor) -> Tensor:
        return xy + xz + yz if self.combine == "sum" else (1.0 + xy) * (1.0 + xz) * (1.0 + yz) - 1.0


def _decoded(hidden: Float[Tensor, "*P H"], weights: list[Tensor]) -> Float[Tensor, "*P 2"]:
    """What the other layers make of what the first one answers."""
    for weight in weights[1:]:
        hidden = F.linear(F.relu(hidden), weight)
    return hidden


def _interpolation(size: int, cells: int) -> Float[Tensor, "N R"]:
    """Shares of a plane's cells, along one axis, in the values at the centres of `size` voxels; double precision."""
    at = ((voxel_centres(size) + 1.0) * cells / 2.0 - 0.5).clamp(0.0, cells - 1.0)
    distance = (at[:, None] - torch.arange(cells, dtype=at.dtype, device=at.device)).abs()
    return (1.0 - distance).clamp_min(0.0)
