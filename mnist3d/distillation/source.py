"""What is fitted to: a field's views, and what one step of a ray meets at a point of it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..geometry.rotations import PoseOptions, sample_rotations
from ..rendering.renderer import FIELD_SAMPLES, AbsorptionRenderer, render_views
from ..volumes.base import Field, grid_shape
from ..volumes.resampling import resampled
from ..volumes.voxel_grid import VoxelGrid, asked_for_values
from ..volumes.wrappers import FrozenField

LARGEST_VIEW = 64  # pixels of the views that are compared; more look at the same matter, and take long
LARGEST_LEARNED = 32  # pixels of the views that are learned from: random rotations look between them
BANK = 600  # views of a source without a grid, made once: each takes as long as a step


class Source:
    """A field that another one is fitted to.

    Args:
        field: nobody may change it meanwhile.
        renderer: shows it; the number of steps on a ray that it takes for this field is kept for the other one too, as
            a view at a finite step depends on it.
    """

    def __init__(self, field: Field, renderer: AbsorptionRenderer) -> None:
        self.field = FrozenField(field)
        self._inner, self._bank = field, None
        options, shape = renderer.options, grid_shape(self.field)
        self.is_grid = shape is not None
        self.samples = options.samples_per_ray or (FIELD_SAMPLES if shape is None else max(shape))
        self.renderer = AbsorptionRenderer(renderer.image_size, self.samples, options.quadrature)
        size = options.image_size
        self.compared = AbsorptionRenderer(min(size, LARGEST_VIEW), self.samples, options.quadrature)
        self.learned = AbsorptionRenderer(min(size, LARGEST_LEARNED), self.samples, options.quadrature)

    @property
    def step(self) -> float:
        """Length of a full step on a ray, world units."""
        return 2.0 / self.samples

    @torch.no_grad()
    def views(self, count: int, generator: Generator) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B H W"]]:
        """Random rotations, uniform over all, and the views to learn from.

        Args:
            count: B.
            generator: draws them, on the CPU.
        """
        if self.is_grid:
            rotations = uniform_rotations(count, generator).to(self.field.like())
            return rotations, self.learned(self.field, rotations)[:, 0]
        if self._bank is None:
            rotations = uniform_rotations(BANK, generator)
            self._bank = rotations, render_views(self.field, self.learned, rotations)[:, 0]
        chosen = torch.randint(BANK, (count,), generator=generator)
        return self._bank[0][chosen], self._bank[1][chosen]

    @torch.no_grad()
    def grid(self, shape: tuple[int, ...]) -> Float[Tensor, "2 Z Y X"]:
        """Attenuation and absorbance at the centres of voxels; of a finer grid means, so that no light is lost."""
        dense = self.field.dense()
        if dense is None:
            return VoxelGrid.from_field(self._inner, shape).dense().to(self.field.like())
        return resampled(dense.double().cpu(), shape).to(dense)

    @contextmanager
    def asked(self) -> Iterator[Callable[[Tensor], tuple[Tensor, Tensor]]]:
        """The field for many questions, its grid computed once; ask without gradients."""
        with asked_for_values(self._inner) as answer:
            yield answer


def uniform_rotations(count: int, generator: Generator) -> Float[Tensor, "B 3 3"]:
    """Uniform over all rotations."""
    return sample_rotations(count, generator, PoseOptions("so3"))


def psnr_of_views(source: Source, field: Field, count: int, seed: int) -> tuple[float, float]:
    """How like two fields' views are, from uniformly random directions.

        PSNR = -10 log10(mean squared error of all pixels of all views)      brightness in [0, 1], so the peak is 1

    Args:
        source: of one field, and the renderer of both.
        field: the other one.
        count: views.
        seed: of their rotations.

    Returns:
        The PSNR of all, and that of the view that is least alike, decibels; inf where they are the same.
    """
    rotations = uniform_rotations(count, torch.Generator().manual_seed(seed))
    wanted = render_views(source.field, source.compared, rotations)
    error = (render_views(field, source.compared, rotations) - wanted).double().square().mean(dim=(1, 2, 3))
    return decibels(float(error.mean())), decibels(float(error.max()))


def decibels(error: float) -> float:
    """Of a mean squared error where the peak is 1."""
    return math.inf if error == 0.0 else -10.0 * math.log10(error)
