"""The image formation against closed forms, symmetries and pixels computed by hand."""

import copy
import dataclasses
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from torch import nn

from mnist3d.geometry.rotations import euler_matrix, turntable
from mnist3d.rendering import renderer as renderer_module
from mnist3d.rendering.renderer import AbsorptionRenderer, for_few_views, render_views
from mnist3d.volumes import HashGrid, VMGrid
from mnist3d.volumes.base import Volume
from mnist3d.volumes.occupancy import occupied_cells
from mnist3d.volumes.voxel_grid import VoxelGrid


class Analytic(Volume):
    """A field given by two functions of the points."""

    def __init__(self, attenuation, absorbance):
        super().__init__()
        self.functions = (attenuation, absorbance)
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, points):
        return self.functions[0](points), self.functions[1](points)


def constant(value):
    return lambda points: torch.full_like(points[..., 0], value)


def pixel_radius_squared(size):
    centre = (2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1
    return centre[:, None] ** 2 + centre[None, :] ** 2


IDENTITY = torch.eye(3, dtype=torch.float64)


def test_empty_volume_is_black():
    image = AbsorptionRenderer(9)(Analytic(constant(0.0), constant(0.3)), IDENTITY)
    assert image.shape == (1, 1, 9, 9)
    assert (image == 0).all()


@pytest.mark.parametrize("samples", [1, 7, 64])
def test_uniform_ball(samples):
    """1 - exp(-mu L), L the chord, times 1 - absorbance: exact at any step, for steps are clipped to the ball."""
    mu, absorbance = 1.7, 0.25
    image = AbsorptionRenderer(16, samples)(Analytic(constant(mu), constant(absorbance)), IDENTITY)[0, 0]
    chord = 2 * (1 - pixel_radius_squared(16)).clamp_min(0).sqrt()
    assert torch.allclose(image, (1 - absorbance) * (1 - torch.exp(-mu * chord)), atol=1e-12)


def slab(low, high, value):
    return lambda p: value * ((p[..., 2] >= low) & (p[..., 2] < high)).to(p.dtype)


def test_uniform_slab():
    """A slab across the ray, edges on step borders: 1 - exp(-mu L) times 1 - absorbance in the centre."""
    image = AbsorptionRenderer(5, 40)(Analytic(slab(-0.5, 0.25, 3.0), constant(0.4)), IDENTITY)[0, 0]
    assert image[2, 2].item() == pytest.approx(0.6 * (1 - math.exp(-3.0 * 0.75)), abs=1e-12)


def test_two_slabs_the_nearer_hides_the_farther():
    def attenuation(p):
        return slab(-0.5, -0.25, 2.0)(p) + slab(0.5, 0.75, 5.0)(p)

    def absorbance(p):
        return 1.0 - 0.9 * (p[..., 2] >= 0).to(p.dtype)  # dark in front, bright behind

    volume = Analytic(attenuation, absorbance)
    front = AbsorptionRenderer(5, 40)(volume, IDENTITY)[0, 0, 2, 2].item()
    behind = AbsorptionRenderer(5, 40)(volume, turntable(2)[1].double())[0, 0, 2, 2].item()
    bright = 0.9 * (1 - math.exp(-5.0 * 0.25))
    assert front == pytest.approx(math.exp(-2.0 * 0.25) * bright, abs=1e-12)
    assert behind == pytest.approx(bright, abs=1e-9)  # float32 turntable angles: sin(pi) is not quite 0


def smooth_attenuation(p):
    x, y, z = p.unbind(-1)
    return (
        2.0 * torch.exp(-3 * ((x - 0.1) ** 2 + 2 * (y + 0.2) ** 2 + (z - 0.15) ** 2)) * (1 - p.square().sum(-1)).relu()
    )


def smooth_absorbance(p):
    return torch.sigmoid(2 * p[..., 0] - p[..., 1] + 3 * p[..., 2])


def test_halving_the_step_converges_with_second_order():
    """The midpoint rule's error falls fourfold; 3.5 leaves room for the next order."""
    rotation = euler_matrix(torch.tensor([0.4, 0.9, -0.3], dtype=torch.float64))
    volume = Analytic(smooth_attenuation, smooth_absorbance)
    fine = AbsorptionRenderer(12, 1024)(volume, rotation)
    errors = [(AbsorptionRenderer(12, n)(volume, rotation) - fine).abs().max().item() for n in (16, 32, 64)]
    assert errors[0] / errors[1] > 3.5
    assert errors[1] / errors[2] > 3.5


def test_dense_grid_converges_to_the_field_it_samples():
    """Grid and step refined together: interpolating one step's opacity is first order in the step."""
    rotation = euler_matrix(torch.tensor([0.4, 0.9, -0.3], dtype=torch.float64))
    truth = AbsorptionRenderer(12, 512)(Analytic(smooth_attenuation, smooth_absorbance), rotation)
    errors = []
    for n in (16, 32, 64):
        centre = (2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1
        z, y, x = torch.meshgrid(centre, centre, centre, indexing="ij")
        points = torch.stack([x, y, z], dim=-1)
        grid = VoxelGrid.from_array(torch.stack([smooth_attenuation(points), smooth_absorbance(points)])).double()
        errors.append((AbsorptionRenderer(12, n)(grid, rotation) - truth).abs().max().item())
    assert errors[0] > 1.7 * errors[1] > 1.7 * 1.7 * errors[2]
    assert errors[2] < 2e-3


def test_grid_and_its_own_field_agree():
    """The kernel and the point query are two ways to the same image; they meet as the step shrinks.

    Of thin haze, where the opacity of a voxel's step, which the query interpolates, is the attenuation times the step.
    """
    generator = torch.Generator().manual_seed(0)
    array = torch.rand(2, 6, 7, 5, generator=generator)
    array[0] *= 0.01
    grid = VoxelGrid.from_array(array).double()
    field = Analytic(lambda p: grid(p)[0], lambda p: grid(p)[1])
    rotation = euler_matrix(torch.tensor([1.0, -0.4, 0.2], dtype=torch.float64))
    difference = AbsorptionRenderer(8, 2000)(grid, rotation) - AbsorptionRenderer(8, 2000)(field, rotation)
    assert difference.abs().max() < 1e-5


def test_opposite_views_mirror_when_absorbance_is_uniform():
    generator = torch.Generator().manual_seed(0)
    array = torch.rand(2, 8, 8, 8, generator=generator, dtype=torch.float64)
    array[1] = 0.35
    front, back = AbsorptionRenderer(10, 16)(VoxelGrid.from_array(array).double(), turntable(2).double())
    assert torch.allclose(front, back.flip(-1), atol=1e-6)  # sin(pi) in float32
    array[1] = torch.rand(8, 8, 8, generator=generator, dtype=torch.float64)
    front, back = AbsorptionRenderer(10, 16)(VoxelGrid.from_array(array).double(), turntable(2).double())
    assert not torch.allclose(front, back.flip(-1), atol=1e-2)


def test_asymmetric_phantom_fixes_every_axis_and_sign():
    """Three opaque voxels of 5^3, each on its own axis; brightness tells them apart. Pixels computed by hand."""
    array = torch.zeros(2, 5, 5, 5)
    for (z, y, x), brightness in {(2, 2, 4): 1.0, (2, 1, 2): 0.5, (1, 2, 2): 0.25}.items():
        array[0, z, y, x] = 1e4
        array[1, z, y, x] = 1 - brightness
    volume = VoxelGrid.from_array(array)
    render = AbsorptionRenderer(5, 5)  # pixel centres are voxel centres, samples too

    def pixels(*angles):
        image = render(volume, euler_matrix(torch.tensor(angles)))[0, 0]
        rounded = (image * 4).round() / 4
        return {(row, column): rounded[row, column].item() for row, column in rounded.nonzero().tolist()}

    # +x voxel right of the centre, the y = -0.4 voxel above it, the z = -0.4 voxel in the centre.
    assert pixels(0.0, 0.0, 0.0) == {(2, 4): 1.0, (1, 2): 0.5, (2, 2): 0.25}
    # Ry(90 deg): camera x = world z, camera z = -world x: the +x voxel comes to the front and centre.
    assert pixels(0.0, math.pi / 2, 0.0) == {(2, 2): 1.0, (1, 2): 0.5, (2, 1): 0.25}
    # Rx(90 deg): camera y = -world z, camera z = world y: the z = -0.4 voxel moves down, y = -0.4 to the front.
    assert pixels(math.pi / 2, 0.0, 0.0) == {(2, 4): 1.0, (2, 2): 0.5, (3, 2): 0.25}
    # Rz(90 deg): camera x = -world y, camera y = world x.
    assert pixels(0.0, 0.0, math.pi / 2) == {(4, 2): 1.0, (2, 3): 0.5, (2, 2): 0.25}


def test_gradcheck_of_grid_and_rotation():
    generator = torch.Generator().manual_seed(1)
    volume = VoxelGrid(resolution=[4, 3, 5]).double()
    rotation = euler_matrix(torch.randn(2, 3, generator=generator, dtype=torch.float64)).requires_grad_()
    render = AbsorptionRenderer(4, 5)

    def image(rotation, *levels):
        return torch.func.functional_call(
            _Rendering(volume, render), {f"volume.levels.{k}": level for k, level in enumerate(levels)}, (rotation,)
        )

    levels = [level.detach().clone().requires_grad_() for level in volume.levels]
    assert torch.autograd.gradcheck(image, (rotation, *levels))


class _Rendering(nn.Module):
    def __init__(self, volume, renderer):
        super().__init__()
        self.volume, self.renderer = volume, renderer

    def forward(self, rotation):
        return self.renderer(self.volume, rotation)


def test_gradcheck_of_a_field_in_the_rotation():
    volume = Analytic(smooth_attenuation, smooth_absorbance)
    rotation = euler_matrix(torch.tensor([[0.2, 0.5, -0.7]], dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: AbsorptionRenderer(4, 6)(volume, r), rotation)


@pytest.mark.parametrize("attenuation", [0.0, 1e4])
def test_extreme_attenuation_keeps_range_and_gradients_finite(attenuation):
    array = torch.full((2, 6, 6, 6), 0.5)
    array[0] = attenuation
    volume = VoxelGrid.from_array(array)
    rotation = turntable(3).requires_grad_()
    image = AbsorptionRenderer(9)(volume, rotation)
    image.sum().backward()
    assert image.min() >= 0
    assert image.max() <= 1
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in volume.parameters())
    assert rotation.grad is not None
    assert rotation.grad.isfinite().all()


def test_image_never_passes_one_and_keeps_its_gradient_there():
    array = torch.zeros(2, 8, 8, 8)
    array[0] = 30.0
    volume = VoxelGrid.from_array(array)
    image = AbsorptionRenderer(28, 32)(volume, turntable(8))
    assert image.max() <= 1.0
    image.sum().backward()
    gradient = volume.levels[0].grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient[0].abs().sum() > 0


def test_image_does_not_depend_on_the_resolution_of_a_uniform_grid():
    images = [
        AbsorptionRenderer(12, 32)(VoxelGrid.from_array(torch.full((2, n, n, n), 0.5)), torch.eye(3))
        for n in (2, 9, 32)
    ]
    assert torch.allclose(images[0], images[1], atol=1e-6)
    assert torch.allclose(images[0], images[2], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((3,), r"; euler_matrix\(angles\) makes rotations"),
        ((2, 3), r"; euler_matrix\(angles\) makes rotations"),
        ((4, 4), r"; of a camera's matrix take \[\.\.\., :3, :3\]"),
        ((5, 3, 4), r"; of a camera's matrix take \[\.\.\., :3, :3\]"),
        ((1, 1, 3, 3), "$"),
        ((2, 2), "$"),
    ],
)
@pytest.mark.parametrize("zeros", [torch.zeros, np.zeros])
@pytest.mark.parametrize("render", ["forward", "render_views"])
def test_bad_rotation_says_its_shape_and_what_to_do(shape, remedy, zeros, render):
    words = rf"rotation has shape {re.escape(str(shape))}: it must be \(3, 3\) or \(B, 3, 3\){remedy}"
    renderer, rotation = AbsorptionRenderer(4), zeros(shape)
    with pytest.raises(ValueError, match=words):
        renderer(VoxelGrid(2), rotation) if render == "forward" else render_views(VoxelGrid(2), renderer, rotation)


@pytest.mark.parametrize("volume", [VoxelGrid(6), VMGrid(6), HashGrid(num_levels=2, max_resolution=6)])
@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_a_rotation_may_be_an_array_of_any_precision(volume, precision):
    """It is taken to the volume's precision, so the view is the one of such a tensor."""
    volume = copy.deepcopy(volume).to(precision)
    array = euler_matrix(torch.tensor([[0.3, 0.5, 0.1], [0.0, -2.0, 0.0]], dtype=torch.float64)).numpy()
    renderer, rotation = AbsorptionRenderer(7, 9), torch.tensor(array).to(precision)
    for given in (array, array.astype(np.float32), array.tolist()):
        assert renderer(volume, given).dtype == precision
        assert torch.allclose(renderer(volume, given), renderer(volume, rotation), atol=1e-5)  # of float32 rotations
    assert torch.equal(renderer(volume, array), renderer(volume, rotation))
    assert torch.equal(renderer(volume, array[0]), renderer(volume, rotation[:1]))
    assert torch.equal(render_views(volume, renderer, array), render_views(volume, renderer, rotation))
    assert torch.equal(render_views(volume, renderer, array[0]), render_views(volume, renderer, rotation[:1]))
    turned = np.eye(3, dtype=int)[[1, 0, 2]] * np.array([-1, 1, 1])[:, None]  # whole numbers, another memory order
    assert torch.equal(renderer(volume, turned), renderer(volume, torch.tensor(turned).to(precision)))


@pytest.mark.parametrize(("height", "width"), [(8, 14), (14, 8), (9, 9), (1, 5)])
@pytest.mark.parametrize("kind", ["field", "grid", "slices"])
def test_a_view_that_is_no_square_has_square_pixels_and_frames_the_ball(height, width, kind):
    """The uniform ball at pixels whose places are written out here: centres one pixel, 2 / shorter, apart, the world's
    origin in the middle."""
    shorter = min(height, width)
    v, u = ((2 * torch.arange(n, dtype=torch.float64) + 1 - n) / shorter for n in (height, width))
    chord = 2 * (1 - v[:, None] ** 2 - u**2).clamp_min(0).sqrt()
    expected = 0.75 * (1 - torch.exp(-1.7 * chord))
    volume, tolerance = Analytic(constant(1.7), constant(0.25)), 1e-12
    if kind != "field":
        volume = VoxelGrid.from_array(torch.tensor([1.7, 0.25])[:, None, None, None].expand(2, 33, 33, 33)).double()
        tolerance = 2e-2  # of 33 voxels across; half a pixel aside it would be .04 and more near the rim
    quadrature = "slices" if kind == "slices" else "trilinear"
    view = AbsorptionRenderer((height, width), 33, quadrature)(volume, IDENTITY)[0, 0]
    assert view.shape == (height, width)
    inner = (v[:, None] ** 2 + u**2 < 0.9) | (v[:, None] ** 2 + u**2 > 1.1)
    assert inner.sum() > 0.6 * inner.numel()
    assert (view - expected)[inner].abs().max() < tolerance
    assert (view[chord == 0] == 0).all()


def test_a_view_that_is_no_square_has_its_gradients_and_pairs_give_the_square_to_the_bit():
    volume = VoxelGrid(6)
    square, wide = AbsorptionRenderer((10, 10)), AbsorptionRenderer(image_size=[10, 16])
    assert (square.image_size, square.options) == ((10, 10), AbsorptionRenderer(10).options)
    view = square(volume, turntable(3))
    assert torch.equal(view, AbsorptionRenderer(10)(volume, turntable(3)))
    assert torch.equal(wide(volume, turntable(3))[..., 3:13], view)
    assert wide(volume, turntable(3)).shape == render_views(volume, wide, turntable(3)).shape == (3, 1, 10, 16)
    slopes = [torch.autograd.grad(each(volume, IDENTITY).sum(), list(volume.parameters())) for each in (square, wide)]
    assert all(torch.equal(first, second) for first, second in zip(*slopes, strict=True))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((28, 29), r"image_size=\(28, 29\): height and width must differ by an even .* a width of 28 or 30"),
        ((31, 28), "a height of 30 or 32"),
        ((28, 28, 1), r"image_size=\(28, 28, 1\): must be one whole number of pixels, or \(height, width\)"),
        ((28,), "one whole number"),
        ((0, 2), r"image_size=0: must be in \[1, 4096\]"),
        ((28, 5000), r"image_size=\(28, 5000\): must be in \[1, 4096\]"),
    ],
)
def test_image_sizes_that_are_refused_in_words(size, words):
    with pytest.raises(ValueError, match=words):
        AbsorptionRenderer(size)


@pytest.mark.parametrize("size", [28.5, "28", None, [28, 28.0]])
def test_an_image_size_that_is_no_whole_number_is_refused_in_words(size):
    with pytest.raises(ValueError, match=re.escape(f"image_size={size!r}: must be one whole number of pixels")):
        renderer_module.height_and_width(size)


def test_memory_of_a_large_image_of_a_field_is_bounded(monkeypatch):
    """Without gradients the field is asked for a few rows at a time; the image is the same."""
    asked = []

    class Watched(Analytic):
        def forward(self, points):
            asked.append(points[..., 0].numel())
            return super().forward(points)

    def ball(p):
        return 3.0 * (p.norm(dim=-1) < 0.4).to(p.dtype)

    volume, renderer = Watched(ball, lambda p: 0.5 + 0.5 * p[..., 0]), AbsorptionRenderer(20, 16)
    views = turntable(3).to(torch.float64)
    whole = renderer(volume, views)
    assert len(asked) == 1
    monkeypatch.setattr("mnist3d.rendering.renderer.POINTS_AT_ONCE", 3000)
    asked.clear()
    with torch.no_grad():
        assert torch.equal(renderer(volume, views), whole)
        assert max(asked) <= 3000
        # in the outer rows nothing is there to ask for
        assert torch.equal(renderer(volume, views, occupancy=occupied_cells(volume, cells=16)), whole)
    assert min(asked) > 0


def test_no_views_give_no_images():
    assert AbsorptionRenderer(4)(VoxelGrid(2), torch.zeros(0, 3, 3)).shape == (0, 1, 4, 4)
    field = Analytic(constant(1.0), constant(0.0))
    assert AbsorptionRenderer(4)(field, torch.zeros(0, 3, 3)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize(("size", "samples"), [(0, None), (28, 0), (5000, None), (28, 9999)])
def test_options_out_of_range(size, samples):
    with pytest.raises(ValueError, match=r"must be in \[1, 4096\]"):
        AbsorptionRenderer(size, samples)


def test_an_unknown_implementation_is_named():
    jaxtyping.config.update("jaxtyping_disable", True)  # the tests' type checks would speak first
    try:
        with pytest.raises(ValueError, match=r"renderer.impl='fastest': must be one of auto, reference, numba, triton"):
            AbsorptionRenderer(4, impl="fastest")  # pyright: ignore[reportArgumentType]
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("options", "device", "said"),
    [
        ({"impl": "triton"}, "cpu", "renderer.impl=triton: computes on cuda, not on cpu; must be auto or reference"),
        ({"impl": "numba"}, "cuda", "renderer.impl=numba: computes on cpu, not on cuda; must be auto or reference"),
        ({"impl": "numba"}, "cpu", None),
        ({"impl": "reference"}, "cuda", None),
        ({"impl": "auto"}, "cuda", None),
    ],
)
def test_a_device_on_which_an_implementation_cannot_compute_is_refused_before_any_work(options, device, said):
    renderer = AbsorptionRenderer(4, **options)
    if said is None:
        renderer.check_device(device)
        return
    with pytest.raises(ValueError, match=re.escape(said)):
        renderer.check_device(device)


def test_an_implementation_that_cannot_be_imported_is_refused_before_any_work(monkeypatch):
    of_modules: list[tuple[str, Any, str]] = [
        ("trilinear_triton", "triton", "cuda"),
        ("trilinear_numba", "numba", "cpu"),
    ]
    for name, impl, device in of_modules:
        monkeypatch.setitem(sys.modules, f"mnist3d.kernels.absorption.{name}", None)
        monkeypatch.delattr(f"mnist3d.kernels.absorption.{name}", raising=False)
        with pytest.raises(ValueError, match=f"renderer.impl='{impl}' cannot import {impl}"):
            AbsorptionRenderer(4, impl=impl).check_device(device)


def test_triton_has_no_slices():
    with pytest.raises(ValueError, match=r"renderer.impl=triton: must be auto, reference or numba with renderer.quad"):
        AbsorptionRenderer(4, quadrature="slices", impl="triton")


def test_few_views_of_a_grid_are_made_without_the_compiled_kernel_and_differ_by_rounding():
    grid = VoxelGrid.from_array(torch.rand(2, 12, 12, 12, generator=torch.Generator().manual_seed(5)))
    renderer = AbsorptionRenderer((28, 32), 20)
    views = 12_000_000 // (28 * 28 * 20)
    few = for_few_views(renderer, grid, views)
    assert few.impl == "reference"
    assert few.image_size == renderer.image_size
    assert dataclasses.replace(few.options, impl="auto") == renderer.options
    rotations = turntable(3, 0.3)
    # float32 along 20 samples a ray
    assert (render_views(grid, few, rotations) - render_views(grid, renderer, rotations)).abs().max() < 5e-6


@pytest.mark.parametrize(
    ("renderer", "volume", "views"),
    [
        (AbsorptionRenderer(28, 20), VoxelGrid(12), 12_000_000 // (28 * 28 * 20) + 1),
        (AbsorptionRenderer(28, 20, "slices"), VoxelGrid(12), 1),
        (AbsorptionRenderer(28, 20, impl="numba"), VoxelGrid(12), 1),
        (AbsorptionRenderer(28, 20), HashGrid(), 1),
        (AbsorptionRenderer(28, 20), VoxelGrid(12).to("meta"), 1),
    ],
)
def test_all_other_views_keep_their_renderer(renderer, volume, views):
    assert for_few_views(renderer, volume, views) is renderer


def test_a_small_export_imports_neither_numba_nor_trimesh(tmp_path):
    run = Path(__file__).parent / "data" / "run_of_0_1_dense"
    commands = [
        ["orbit", str(run), "--output", str(tmp_path / "strip.png"), "--frames", "8", "--size", "32"],
        ["view", str(run), "--snapshot", str(tmp_path / "views.png")],
        ["mesh", str(run), "--output", str(tmp_path / "sculpture.stl")],
    ]
    script = (
        "import sys\nfrom mnist3d.cli.program import _main_of\n"
        f"for name, *rest in {commands!r}:\n    _main_of(name)(rest)\n"
        "print(sorted({'numba', 'trimesh', 'matplotlib', 'torch._dynamo'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
    assert done.stderr.splitlines()[-1] == "[]"
