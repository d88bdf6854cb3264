"""The "slices" quadrature: closed forms, convergence to the other quadrature, gradients and the contract."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mnist3d.kernels.absorption import render_grid
from mnist3d.kernels.absorption.shear_warp import ball_share, shear_of
from mnist3d.kernels.absorption.slices_numba import render_slices_numba
from mnist3d.kernels.absorption.slices_reference import render_slices_reference
from mnist3d.testing.kernels import check_absorption_kernel, random_rotations

RENDERERS = {"reference": render_slices_reference, "numba": render_slices_numba}


def rotations(views: int) -> Tensor:
    """Each of `views` random rotations three times, its world axes permuted: all axes are marched along."""
    base = random_rotations(views, torch.Generator().manual_seed(0))
    half_turns = torch.tensor([[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]], dtype=torch.float64)
    return torch.cat([base.roll(shift, dims=-1) * turn for shift, turn in enumerate(half_turns)])


def field(edge: int, inner: float = 0.6) -> tuple[Tensor, Tensor]:
    """A smooth scene that is nearly empty at the ball's rim, where the two quadratures differ most."""
    centre = (2.0 * torch.arange(edge, dtype=torch.float64) + 1.0) / edge - 1.0
    z, y, x = torch.meshgrid(centre, centre, centre, indexing="ij")
    near = torch.exp(-(((x * x + y * y + z * z) / inner**2) ** 2))
    return 4.0 * near * (1.0 + torch.sin(4.0 * x + 2.0 * y)), 0.5 + 0.4 * torch.sin(3.0 * y + z)


def test_the_voxels_shares_sum_to_the_volume_of_the_ball() -> None:
    share = ball_share((64, 48, 80), dtype=torch.float64)
    # The sphere is flat in a voxel: the error of one is O(1 / N^2) of it, and they have both signs.
    assert share.mean().item() * 8.0 == pytest.approx(4.0 / 3.0 * torch.pi, rel=1e-3)
    assert share.min() == 0.0
    assert share.max() == 1.0


def test_shear_and_warp_lead_back_to_the_pixel() -> None:
    rotation = rotations(5)
    axis, _, numbers = shear_of(rotation)
    pixel = torch.tensor([0.3, -0.5], dtype=torch.float64)
    for view, which in enumerate(axis.tolist()):
        row, column = {0: (2, 1), 1: (2, 0), 2: (1, 0)}[which]
        height = 0.4  # of the slice, along the axis
        point = torch.zeros(3, dtype=torch.float64)
        point[which] = height
        point[column] = numbers[view, :2] @ pixel + numbers[view, 4] * height
        point[row] = numbers[view, 2:4] @ pixel + numbers[view, 5] * height
        torch.testing.assert_close((rotation[view] @ point)[:2], pixel)


def test_it_converges_to_the_trilinear_image() -> None:
    rotation = rotations(2)
    truth = render_grid(*field(160), rotation, 24, 320, impl="numba")
    errors = []
    for edge in (16, 32, 64):
        image = render_grid(*field(edge), rotation, 24, edge, impl="numba", quadrature="slices")
        errors.append((image - truth).abs().max().item())
    # Second order in the voxel for a smooth scene; 1/3 leaves room for the rim.
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3
    assert errors[2] < 1e-2  # trilinear at 64^3: 3e-3


def test_a_ball_of_constant_attenuation_follows_beer_lambert() -> None:
    grid = torch.full((96, 96, 96), 0.7, dtype=torch.float64)
    image = render_grid(grid, torch.full_like(grid, 0.25), rotations(2), 15, 1, impl="numba", quadrature="slices")
    centre = (2.0 * torch.arange(15, dtype=torch.float64) + 1.0) / 15 - 1.0
    square = centre[:, None] ** 2 + centre**2
    expected = 0.75 * (1.0 - torch.exp(-0.7 * 2.0 * (1.0 - square).clamp_min(0.0).sqrt()))
    inner = square < 0.85  # at the rim the chord shrinks like a square root, and the ramp of one voxel shows
    torch.testing.assert_close(image[:, inner], expected[inner].expand(6, -1), rtol=0, atol=3e-3)
    assert (image[:, square >= 1.0] == 0.0).all()


@pytest.mark.parametrize("impl", ["reference", "numba"])
def test_gradcheck(impl: str) -> None:
    generator = torch.Generator().manual_seed(0)
    attenuation, absorbance = torch.rand(2, 3, 2, 4, generator=generator, dtype=torch.float64)
    attenuation[1:, :, 1:3] = 1e3  # opacity of exactly 1
    attenuation[:, :, 3] = 0.0
    inputs = (attenuation.requires_grad_(), absorbance.requires_grad_(), rotations(1).requires_grad_())
    axis, ahead, _ = shear_of(rotations(1))
    assert len(set(axis.tolist())) == 3, "the views must cover all three axes"
    assert len(set(ahead.tolist())) == 2, "and both directions"
    assert torch.autograd.gradcheck(lambda a, b, r: RENDERERS[impl](a, b, r, 4), inputs, atol=1e-6)


@pytest.mark.parametrize("scale", [3.0, 1e4])
def test_numba_fulfils_the_contract(scale: float) -> None:
    check_absorption_kernel(
        lambda a, b, r, size, _: render_slices_numba(scale * a, b, r, size),
        lambda a, b, r, size, _: render_slices_reference(scale * a, b, r, size),
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b, r, size: render_slices_reference(1.01 * a - 0.01 * a.detach(), b, r, size),
        lambda a, b, r, size: render_slices_reference(a.roll(1, 0), b, r, size),
        lambda a, b, r, size: render_slices_reference(a, b, 1.01 * r - 0.01 * r.detach(), size),
    ],
    ids=["gradient times 1.01", "one slice off", "gradient to the rotation times 1.01"],
)
def test_the_contract_refuses_a_wrong_kernel(wrong: Callable[..., Tensor]) -> None:
    with pytest.raises(AssertionError, match="is off by"):
        check_absorption_kernel(
            lambda a, b, r, size, _: wrong(3.0 * a, b, r, size),
            lambda a, b, r, size, _: render_slices_reference(3.0 * a, b, r, size),
        )


@pytest.mark.parametrize("count", [1, 2, 5])
def test_reruns_are_bit_equal_for_a_number_of_threads(count: int) -> None:
    attenuation, absorbance = (tensor.float().requires_grad_() for tensor in field(20))
    rotation = rotations(3).float()
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        runs = []
        for _ in range(3):
            image = render_grid(attenuation, absorbance, rotation, 18, 1, impl="numba", quadrature="slices")
            upstream = torch.linspace(-1.0, 1.0, image.numel()).view_as(image)
            runs.append([image.detach(), *torch.autograd.grad(image, (attenuation, absorbance), upstream)])
    finally:
        torch.set_num_threads(before)
    for again in runs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(runs[0], again, strict=True))


def test_an_unknown_quadrature_is_named() -> None:
    grid = torch.zeros(2, 2, 2)
    with pytest.raises(ValueError, match="must be one of trilinear, slices"):
        render_grid(grid, grid, torch.eye(3)[None], 2, 2, quadrature="simpson")


def test_matrices_that_are_no_rotations_stay_inside_their_memory() -> None:
    attenuation, absorbance = (tensor.float().requires_grad_() for tensor in field(6))
    matrices = torch.stack(
        [torch.eye(3) * 1e6, torch.full((3, 3), torch.inf), torch.full((3, 3), torch.nan), torch.zeros(3, 3)]
    )
    render_slices_numba(attenuation, absorbance, matrices, 8).sum().backward()
