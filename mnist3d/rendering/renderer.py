"""Volume and rotation -> view. The only place that knows the integral.

A module without weights that puts together rays, the volume's answers and the kernels. A volume says itself whether
it is a grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import ConfigError
from ..geometry.arrays import ArrayOrList, computed, without_autocast
from ..geometry.cameras import camera_to_world
from ..geometry.parts import in_parts
from ..geometry.rotations import as_rotations
from ..kernels.absorption import ball_quadrature, check_can_compute, render_grid
from ..kernels.block_absorption import Blocks, render_blocks
from ..kernels.compositing import composite
from ..storage.memory import check_fits
from ..volumes.base import Field, grid_shape
from ..volumes.occupancy import CELLS, Occupancy
from ..volumes.wrappers import FrozenField
from .frame import MAX_IMAGE_SIZE, height_and_width, widened

FIELD_SAMPLES = 64  # samples a ray for a volume that is no grid and so has no voxel to count by
QuadratureName = Literal["trilinear", "slices"]
ImplementationName = Literal["auto", "reference", "numba", "triton"]
MAX_SAMPLES = 4096
VIEWS_AT_ONCE = 16  # bounds the memory of many views,
POINTS_AT_ONCE = 2**20  # bounds the memory of a large view of a field,
MOST_POINTS = 2**23  # and that of a row of each view at once
COPIES_OF_A_VIEW, BYTES_OF_A_POINT = 4, 200  # while it is made
FEW_SAMPLES = 12_000_000  # of a grid: plain PyTorch takes as long for them as to load the compiled kernel, .6 s


@dataclass
class RendererOptions:
    """How a volume is rendered.

    Args:
        image_size: Pixels along each edge of a view, 1 to 4096.
        samples_per_ray: Steps along the diameter of the unit ball, 1 to 4096; default the number of voxels along the
            longest edge of a grid, 64 for a field.
        quadrature: How the integral through a grid is computed: trilinear (samples along each ray) or slices (the
            slices of the grid, several times as fast). Does not matter for a field without a grid.
        impl: Program that renders a grid: reference (PyTorch), numba (CPU), triton (NVIDIA GPU, trilinear only), or
            auto, the fastest that gives the reference's views here. Finished runs are always opened with auto.
    """

    image_size: int = 28
    samples_per_ray: int | None = None
    quadrature: QuadratureName = "trilinear"
    impl: ImplementationName = "auto"

    def __post_init__(self) -> None:
        for name, known in (("quadrature", QuadratureName), ("impl", ImplementationName)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(
                    f"renderer.{name}={getattr(self, name)!r}: must be one of {', '.join(get_args(known))}"
                )
        if self.impl == "triton" and self.quadrature != "trilinear":
            raise ValueError(
                f"renderer.impl=triton: must be auto, reference or numba with renderer.quadrature={self.quadrature}"
            )
        if not 1 <= self.image_size <= MAX_IMAGE_SIZE:
            raise ValueError(f"renderer.image_size={self.image_size}: must be in [1, {MAX_IMAGE_SIZE}]")
        if self.samples_per_ray is not None and not 1 <= self.samples_per_ray <= MAX_SAMPLES:
            raise ValueError(f"renderer.samples_per_ray={self.samples_per_ray}: must be in [1, {MAX_SAMPLES}]")


class AbsorptionRenderer(nn.Module):
    """Differentiable views of a volume: each point gives back the light that it intercepts and does not absorb.

        image = integral of transmittance * attenuation * (1 - absorbance) dt

    Args:
        image_size: pixels along each edge, 1 to 4096; or (H, W), which differ by an even number. Pixels are square, the
            middle is the world's origin, and [-1, 1] spans the shorter edge, so every view frames the whole unit ball;
            nothing lies beyond it along the longer one.
        samples_per_ray: steps along the ball's diameter, 1 to 4096; None: the number of voxels along the longest axis
            of a grid, 64 for a field without a grid.
        quadrature: "trilinear" or "slices", for dense volumes; see `kernels.absorption.render_grid`.
        impl: implementation of the dense kernel, see `kernels.absorption.render_grid`.

    Raises:
        ValueError: a number outside its range, or a height and a width that differ by an odd number.
    """

    def __init__(
        self,
        image_size: int | Sequence[int] = 28,
        samples_per_ray: int | None = None,
        quadrature: QuadratureName = "trilinear",
        impl: ImplementationName = "auto",
    ) -> None:
        super().__init__()
        self.image_size = height_and_width(image_size)
        self.options = RendererOptions(min(self.image_size), samples_per_ray, quadrature, impl)

    @property
    def impl(self) -> ImplementationName:
        """Who renders a grid."""
        return self.options.impl

    def check_device(self, device: torch.device | str) -> None:
        """Refuse, before any work, a device on which its `impl` cannot compute.

        Raises:
            ValueError: with the reason and what to do.
        """
        try:
            check_can_compute(self.impl, self.options.quadrature, torch.device(device))
        except ValueError as error:
            raise ValueError(f"renderer.{error}") from None

    def extra_repr(self) -> str:
        """What it was made with, for `repr`."""
        height, width = self.image_size
        size, options = height if height == width else self.image_size, self.options
        said = {"samples_per_ray": options.samples_per_ray, "quadrature": options.quadrature, "impl": self.impl}
        return ", ".join([f"image_size={size}", *(f"{name}={value!r}" for name, value in said.items())])

    def forward(
        self,
        volume: Field,
        rotation: Float[Tensor, "..."] | ArrayOrList,
        *,
        generator: torch.Generator | None = None,
        occupancy: Occupancy | None = None,
        part: slice | None = None,
        at_once: int | None = None,
    ) -> Float[Tensor, "B 1 H W"]:
        """Views of the volume under the rotations.

        A grid of 16 bits is rendered in float32; `torch.autocast` has no influence, on the volume neither.

        Args:
            volume: its grid is rendered if it has one; otherwise it is evaluated at points along the rays.
            rotation: (3, 3) or (B, 3, 3), a tensor or a NumPy array; x_camera = rotation @ x_world.
            generator: random numbers for training, on the CPU: each sample of a field lies at random within its
                step. None: in the middle of it. A grid needs no random numbers.
            occupancy: cells of the field that are not empty; the field is evaluated only there, and only there has
                it a gradient. It must not have changed much since they were computed.
            part: which of the rotations to render, with the random numbers that they have when all are; default all.
            at_once: views of which samples are kept for the gradient at a time, >= 1; those of other views are computed
                again when it is asked for. Default all. Of a grid the compiled kernels keep none.

        Returns:
            Brightness in [0, 1]; B is 1 for a single rotation.

        Raises:
            ValueError: the rotation's shape is neither (3, 3) nor (B, 3, 3).

        Gradients:
            To the volume's parameters and to the rotation.
        """
        every = computed(as_rotations(rotation, volume.like())).reshape(-1, 3, 3)
        rotation = every if part is None else every[part]
        with without_autocast(rotation):
            blocks = self._blocks(volume)
            grid = volume.dense() if blocks is None else None
            if blocks is not None:
                view = self._of_blocks(blocks, rotation, at_once)
            elif grid is None:
                draw = None if generator is None else partial(_drawn, generator, len(every), part)
                view = self._of_field(volume, rotation, draw, occupancy, at_once)
            else:
                view = self._of_grid(computed(grid), rotation, at_once)
        # Rounding can pass 1 by an ulp. A clamp would take the gradient of just those pixels away.
        view = view - (view.detach() - 1.0).clamp_min(0.0)
        return widened(view[:, None], self.image_size)

    def _blocks(self, volume: Field) -> Blocks | None:
        """Of a grid that is stored so, for those who can render them."""
        return volume.blocks() if self.options.quadrature == "trilinear" and self.impl != "triton" else None

    def _of_blocks(
        self, blocks: Blocks, rotation: Float[Tensor, "B 3 3"], at_once: int | None
    ) -> Float[Tensor, "B H W"]:
        size, samples = self.options.image_size, self.options.samples_per_ray or max(blocks.resolution)
        return render_blocks(blocks, rotation.to(blocks.raw), size, samples, self.impl, at_once)

    def _of_grid(
        self, grid: Float[Tensor, "2 Z Y X"], rotation: Float[Tensor, "B 3 3"], at_once: int | None
    ) -> Float[Tensor, "B H W"]:
        samples = self.options.samples_per_ray or max(grid.shape[1:])
        rotation = rotation.to(grid)
        attenuation, absorbance = grid.unbind()  # two indices would add up two gradients
        return render_grid(
            attenuation,
            absorbance,
            rotation,
            self.options.image_size,
            samples,
            impl=self.impl,
            quadrature=self.options.quadrature,
            at_once=at_once,
        )

    def _of_field(
        self,
        volume: Field,
        rotation: Float[Tensor, "B 3 3"],
        draw: Callable[[int], Tensor] | None,
        occupancy: Occupancy | None,
        at_once: int | None,
    ) -> Float[Tensor, "B H W"]:
        size, samples = self.options.image_size, self.options.samples_per_ray or FIELD_SAMPLES
        rows = size
        if draw is None and not torch.is_grad_enabled():  # else all is kept for the gradient anyway
            rows = min(size, max(1, POINTS_AT_ONCE // max(1, len(rotation) * size * samples)))
        bands = [slice(low, low + rows) for low in range(0, size, rows)]
        rows_of = partial(self._rows_of_field, volume, rotation, draw, occupancy, at_once)
        return torch.cat([rows_of(band) for band in bands], dim=1)

    def _rows_of_field(
        self,
        volume: Field,
        rotation: Float[Tensor, "B 3 3"],
        draw: Callable[[int], Tensor] | None,
        occupancy: Occupancy | None,
        at_once: int | None,
        rows: slice,
    ) -> Float[Tensor, "B H W"]:
        size, samples = self.options.image_size, self.options.samples_per_ray or FIELD_SAMPLES
        step = 2.0 / samples
        camera, share = ball_quadrature(size, samples, rows=rows, dtype=rotation.dtype, device=rotation.device)
        inside = share > 0  # the same samples for every view, so the field is asked for these alone
        length = share[inside] * step
        camera = camera[inside]

        def shown(turns: Tensor, moved: Tensor | None = None) -> tuple[Tensor]:
            points = camera_to_world(camera, turns)
            if moved is not None:
                points = points + ((moved - 0.5) * length)[..., None] * turns[:, None, 2, :]
            attenuation, absorbance = _ask(volume, points, occupancy)
            opacity = -torch.expm1(-attenuation * length)
            filled = opacity.new_zeros(2, len(turns), *share.shape)
            filled[0, :, inside] = opacity
            filled[1, :, inside] = absorbance
            return (composite(filled[0], filled[1]),)

        drawn = () if draw is None else (draw(len(camera)).to(camera),)
        return in_parts(shown, at_once, rotation, *drawn)[0]


def _drawn(generator: torch.Generator, views: int, part: slice | None, points: int) -> Float[Tensor, "B P"]:
    """Random numbers for each point of each view, of which a part may be asked for; from the CPU, so that every device
    draws the same."""
    drawn = torch.rand(views, points, generator=generator, device=generator.device)
    return drawn if part is None else drawn[part]


def _ask(
    volume: Field, points: Float[Tensor, "B P 3"], occupancy: Occupancy | None
) -> tuple[Float[Tensor, "B P"], Float[Tensor, "B P"]]:
    """The field at the points, 0 where it is known to be empty."""
    if occupancy is None:
        return volume(points)
    asked = occupancy(points)
    if not asked.any():
        if torch.is_grad_enabled():  # a gradient needs a way into the field
            return volume(points)
        return torch.zeros_like(points[..., 0]), torch.zeros_like(points[..., 0])
    found = torch.stack(volume(points[asked]))
    filled = found.new_zeros(2, *asked.shape)
    filled[:, asked] = found
    return filled[0], filled[1]


def for_few_views(renderer: AbsorptionRenderer, volume: Field, views: int) -> AbsorptionRenderer:
    """The renderer for a command that makes so many views and ends.

    A few views of a grid are made in plain PyTorch before the compiled kernel is loaded. The work alone decides, never
    what else the process has done, so the same command writes the same file; a view of the two differs by rounding.

    Args:
        renderer: itself returned, unless its `impl` is "auto", the work is small and the volume a grid on the CPU.
        volume: what is rendered.
        views: how many, all together.
    """
    like, options = volume.like(), renderer.options
    # Plain PyTorch takes long over the many small slices of the other quadrature.
    if renderer.impl != "auto" or options.quadrature != "trilinear" or like.device.type != "cpu":
        return renderer
    grid = None if volume.blocks() is not None else volume.dense()  # of blocks it takes far longer
    if grid is None:
        return renderer
    samples = views * options.image_size**2 * (options.samples_per_ray or max(grid.shape[1:]))
    if samples > FEW_SAMPLES:
        return renderer
    return AbsorptionRenderer(renderer.image_size, options.samples_per_ray, options.quadrature, impl="reference")


@torch.no_grad()
def render_views(
    volume: Field, renderer: AbsorptionRenderer, rotations: Float[Tensor, "..."] | ArrayOrList
) -> Float[Tensor, "B 1 H W"]:
    """Views without gradients, on the CPU, rendered a few at a time where the volume lies; brightness in [0, 1].

    If there are enough views, a field is first evaluated on a coarse grid, and then skipped where it is empty. A pixel
    then differs by half a grey level of 8 bits at most (see `occupied_cells`).

    Args:
        volume: any field; pass a `FrozenField` if you render it more than once.
        renderer: makes the views.
        rotations: (3, 3) or (B, 3, 3), a tensor or a NumPy array; x_camera = rotation @ x_world.

    Raises:
        ValueError: the rotations' shape is neither (3, 3) nor (B, 3, 3).
        ConfigError: the views would not fit into the memory that is free.
    """
    frozen = volume if isinstance(volume, FrozenField) else FrozenField(volume)
    rotations = as_rotations(rotations, frozen.like()).reshape(-1, 3, 3)
    is_field, size = grid_shape(frozen) is None, renderer.options.image_size
    on_a_row = size * (renderer.options.samples_per_ray or FIELD_SAMPLES) if is_field else 1
    at_once = max(1, min(VIEWS_AT_ONCE, MOST_POINTS // on_a_row))
    _check_views(len(rotations), renderer, at_once, max(POINTS_AT_ONCE, at_once * on_a_row) if is_field else 0)
    occupancy = frozen.occupancy() if is_field and len(rotations) * size**2 * FIELD_SAMPLES > 8 * CELLS**3 else None
    views = torch.empty(len(rotations), 1, *renderer.image_size, dtype=torch.float32, device="cpu")
    for part, place in zip(rotations.split(at_once), views.split(at_once), strict=True):
        place.copy_(renderer(frozen, part, occupancy=occupancy))
    return views


def _check_views(count: int, renderer: AbsorptionRenderer, at_once: int, points: int) -> None:
    """Fail before views are made that would not fit into the memory that is free."""
    height, width = renderer.image_size
    pixels = (count + COPIES_OF_A_VIEW * min(count, at_once)) * height * width
    what = f"renderer.image_size={max(height, width)}: {count:,} views take"
    remedy = "lower renderer.image_size or the number of views"
    check_fits(4 * pixels + BYTES_OF_A_POINT * points, what, remedy, ConfigError)
