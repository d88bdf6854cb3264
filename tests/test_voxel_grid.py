"""The dense backend."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mnist3d.geometry.rotations import euler_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes import VMGrid, Volume, VoxelGrid, voxel_grid
from tests.third_party.glass_beads import Beads


def test_start_is_as_bright_and_dense_as_asked():
    torch.manual_seed(0)
    volume = VoxelGrid(32, initial_opacity=0.05, initial_brightness=0.6, initial_noise=0.0)
    attenuation, absorbance = volume.to_array()
    step = 2 / 32
    assert np.allclose(1 - np.exp(-attenuation * step), 0.05, atol=1e-6)
    assert np.allclose(1 - absorbance, 0.6, atol=1e-6)


def test_pyramid_levels_are_shares_of_the_resolution():
    assert [tuple(level.shape) for level in VoxelGrid([8, 12, 16], pyramid=[0.25, 0.5]).levels] == [
        (2, 2, 3, 4),
        (2, 4, 6, 8),
        (2, 8, 12, 16),
    ]


def test_a_coarse_level_moves_a_region():
    volume = VoxelGrid(8, pyramid=[0.25], initial_noise=0.0)
    before = volume.dense().detach()
    with torch.no_grad():
        volume.levels[0][0, 0, 0, 0] = 2.0
    moved = (volume.dense().detach() - before)[0].abs() > 1e-3
    assert 8 <= int(moved.sum()) < 8**3
    assert moved[:2, :2, :2].all()


def test_levels_add_up_as_trilinear_interpolation():
    volume = VoxelGrid([9, 5, 14], pyramid=[0.1, 0.5]).double()
    with torch.no_grad():
        for level in volume.levels:
            level.copy_(torch.randn(level.shape))
    raw = volume.bias + sum(
        F.interpolate(level[None], size=volume.resolution, mode="trilinear", align_corners=False)[0]
        for level in volume.levels
    )
    expected = torch.stack([F.softplus(raw[0]) / volume.voxel_step, raw[1].sigmoid()])
    torch.testing.assert_close(volume.dense(), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", [(2, 5, 5, 5), (2, 3, 4, 7), (2, 1, 1, 1)])
def test_array_round_trip(shape):
    random = np.random.default_rng(0)
    array = random.random(shape).astype(np.float32)
    array[0] *= 50
    array[0].flat[0] = 0.0
    array[1].flat[0] = 1.0
    array[1].flat[-1] = 0.0
    back = VoxelGrid.from_array(array).to_array()
    assert back.shape == shape
    # raw values are stored in fp32: log(x) carries |log x| roundings back through exp
    assert np.allclose(back, array, rtol=3e-6, atol=1e-6)
    assert back[0].flat[0] == 0.0
    assert back[1].flat[0] == array[1].flat[0]
    assert back[1].flat[-1] == 0.0


@pytest.mark.parametrize("shape", [(5, 5, 5), (2, 3, 4), (1, 1, 1)])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy, np.ndarray.tolist])
def test_an_array_of_three_axes_is_attenuation_alone(shape, kind):
    array = 50 * np.random.default_rng(0).random(shape)
    alone = VoxelGrid.from_array(kind(array))
    both = VoxelGrid.from_array(np.stack([array, np.zeros(shape)]))
    assert alone.resolution == shape
    assert torch.equal(alone.dense(), both.dense())
    assert (alone.to_array()[1] == 0.0).all()


def test_an_array_is_read_whatever_its_strides_byte_order_and_rights():
    array = np.random.default_rng(0).random((2, 3, 4, 5))
    expected = VoxelGrid.from_array(array).to_array()
    kept = array.copy()
    kept.setflags(write=False)
    swapped, reverse, turned = array.astype(">f8"), array[:, ::-1], np.asfortranarray(array)
    for same in (kept, swapped, turned):
        assert np.array_equal(VoxelGrid.from_array(same).to_array(), expected)
    # not to the bit: torch takes logarithms of eight neighbours at once, and of the last few one by one
    assert np.allclose(VoxelGrid.from_array(reverse).to_array(), expected[:, ::-1], rtol=3e-6, atol=1e-6)
    assert np.array_equal(kept, array)  # the caller's own stays


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2, 2, 2)), r"shape \(3, 2, 2, 2\)"),
        (np.zeros((2, 2)), r"shape \(2, 2\): it must be \(Z, Y, X\), attenuation alone, or \(2, Z, Y, X\)"),
        (torch.zeros(2, 2, 2, 2, 2), r"shape \(2, 2, 2, 2, 2\)"),
        (np.zeros((2, 2, 0)), "none of them 0"),
        (np.full((2, 2, 2), -1.0), r"attenuation lies in \[-1, -1\]: it must be finite and >= 0"),
        (np.full((2, 2, 2), "much"), "array must be an array of numbers; this is <U4"),
        (np.zeros((2, 0, 2, 2)), "none of them 0"),
        (np.full((2, 2, 2, 2), -1.0), "attenuation"),
        (np.full((2, 2, 2, 2), 1.5), "absorbance"),
        (np.full((2, 2, 2, 2), np.nan), "finite"),
        (np.full((2, 2, 2, 2), np.inf), "finite"),
    ],
)
def test_bad_arrays(array, message):
    with pytest.raises(ValueError, match=message):
        VoxelGrid.from_array(array)


@pytest.mark.parametrize(
    "arguments",
    [
        {"resolution": 0},
        {"resolution": 2000},
        {"resolution": [4, 4]},
        {"resolution": [4, 0, 4]},
        {"pyramid": [1.5]},
        {"pyramid": [0.0]},
        {"initial_opacity": 1.0},
        {"initial_brightness": 0.0},
        {"initial_noise": -1.0},
        {"initial_noise": float("nan")},
    ],
)
def test_bad_arguments_name_themselves(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        VoxelGrid(**{"resolution": 4, **arguments})


def test_points_at_voxel_centres_read_the_voxels_in_xyz_order():
    array = np.zeros((2, 3, 4, 5), np.float32)
    array[0, 2, 1, 3] = 7.0
    array[1, 2, 1, 3] = 0.25
    volume = VoxelGrid.from_array(array)
    point = torch.tensor([(2 * 3 + 1) / 5 - 1, (2 * 1 + 1) / 4 - 1, (2 * 2 + 1) / 3 - 1])
    attenuation, absorbance = volume(point)
    assert attenuation.item() == pytest.approx(7.0, rel=1e-5)
    assert absorbance.item() == pytest.approx(0.25, rel=1e-5)


def test_points_keep_their_leading_axes_and_may_be_none():
    volume = VoxelGrid(4)
    assert [value.shape for value in volume(torch.zeros(2, 5, 3))] == [(2, 5), (2, 5)]
    assert [value.shape for value in volume(torch.zeros(0, 3))] == [(0,), (0,)]


def test_init_args_remember_defaults_and_survive_a_copy():
    import copy

    volume = VoxelGrid(8, pyramid=[0.5])
    expected = {
        "resolution": 8,
        "pyramid": [0.5],
        "initial_opacity": 0.02,
        "initial_brightness": 0.27,
        "initial_noise": 0.3,
        "grow_at": None,
    }
    assert volume.init_args == expected
    assert copy.deepcopy(volume).init_args == expected


def test_between_voxels_the_opacity_of_a_step_is_interpolated():
    array = torch.zeros(2, 4, 4, 4)
    array[0, :, :, 2:] = 1000.0  # opaque within a hundredth of a voxel
    grid = VoxelGrid.from_array(array)
    # centres at -.75, -.25, .25, .75: at x = 0 a step of 1/2 is half opaque, at .125 three quarters
    attenuation, _ = grid(torch.tensor([[0.0, 0.1, 0.1], [0.125, 0.0, 0.0], [0.25, 0.25, 0.25]]))
    expected = torch.tensor([math.log(2.0) / 0.5, math.log(4.0) / 0.5])
    torch.testing.assert_close(attenuation[:2].detach(), expected, rtol=1e-5, atol=0)
    assert attenuation[2] > 60.0  # as opaque as double precision can tell


@pytest.mark.parametrize("attenuation", [0.0, 1e-6, 3.0, 300.0, 1e5])
def test_at_the_centres_forward_says_what_the_grid_holds_however_opaque(attenuation):
    grid = VoxelGrid.from_array(torch.tensor([attenuation, 0.25]).reshape(2, 1, 1, 1).expand(2, 4, 4, 4).clone())
    points = torch.tensor([[0.25, -0.25, 0.75], [0.0, 0.1, 0.2]], requires_grad=True)
    found, absorbance = grid(points)
    torch.testing.assert_close(found.detach(), torch.full((2,), attenuation), rtol=1e-5, atol=0)
    (found + absorbance).sum().backward()
    for gradient in (points.grad, grid.levels[0].grad):
        assert gradient is not None
        assert bool(gradient.isfinite().all())


def soft_box():
    values = torch.zeros(2, 20, 20, 20)
    values[0, 6:14, 4:16, 7:12] = 20.0
    values[1, 6:14, 4:10, 7:12] = 0.8
    return values


def test_made_of_voxels_it_shows_them_and_learns_from_there():
    volume = VoxelGrid(20, grow_at=[0.5])
    volume.take_voxels(soft_box())
    assert volume.resolution == (20, 20, 20)
    renderer = AbsorptionRenderer(24)
    shown, wanted = renderer(volume, torch.eye(3)), renderer(VoxelGrid.from_array(soft_box()), torch.eye(3))
    assert float((shown - wanted).detach().abs().max()) < 0.02  # opacities within e^-8 of 0 and 1
    shown.sum().backward()
    gradient = volume.levels[-1].grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert float(gradient[0, 10, 10, 3].abs()) > 0.0  # beside the box, where nothing was
    assert not volume.grow(10**9, 1.0)


def test_made_of_more_voxels_than_it_has_it_keeps_black_matter_black():
    array = torch.zeros(2, 16, 16, 16)
    array[:, 4:12, 4:12, 5] = torch.tensor([20.0, 1.0]).reshape(2, 1, 1)  # a black wall, one voxel thin
    volume = VoxelGrid(8)
    volume.take_voxels(array)
    attenuation, absorbance = volume.to_array()
    assert absorbance[attenuation > 1.0].min() > 0.99
    assert attenuation[3, 3, 2] == pytest.approx(10.0, rel=1e-3)


def test_made_of_fewer_voxels_it_shows_what_the_renderer_draws_between_them():
    coarse = torch.rand(2, 5, 4, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 1]).view(
        2, 1, 1, 1
    )
    volume = VoxelGrid([10, 8, 12])
    volume.take_voxels(coarse)
    z, y, x = torch.meshgrid(*[(2.0 * torch.arange(n) + 1) / n - 1 for n in (10, 8, 12)], indexing="ij")
    expected = torch.stack(VoxelGrid.from_array(coarse)(torch.stack([x, y, z], dim=-1))).detach()
    # raw values in fp32, twice; absorbance next to 0 and 1 ends at a raw value of 8, e^-8 from there
    torch.testing.assert_close(volume.dense().detach(), expected, rtol=1e-4, atol=4e-4)


def test_without_a_resolution_it_is_the_default_grid_and_says_so():
    volume = VoxelGrid()
    assert (volume.resolution, volume.grow_at) == ((32, 32, 32), [0.3])
    assert {key: volume.init_args[key] for key in ("resolution", "grow_at")} == {"resolution": 64, "grow_at": [0.3]}
    assert VoxelGrid(grow_at=[]).resolution == (64, 64, 64)
    assert VoxelGrid(64).resolution == (64, 64, 64)


def decibels(found, expected):
    """Peak signal-to-noise ratio of images in [0, 1]."""
    return -10.0 * (found - expected).square().mean(dim=(1, 2, 3)).log10()


class Filled(Volume):
    """Uniform, up to the sphere and beyond: the rim is all that can go wrong."""

    def __init__(self, attenuation: float = 2.0) -> None:
        super().__init__()
        self.attenuation = torch.nn.Parameter(torch.tensor(attenuation))
        self.most_points = 0

    def forward(self, points):
        self.most_points = max(self.most_points, len(points))
        assert not self.training
        assert points.norm(dim=-1).max() <= 1.0 + 1e-6
        return self.attenuation.expand(points.shape[:-1]), 0.25 + 0.25 * points[..., 0]


@pytest.mark.parametrize("volume", [Beads(12, radius=0.2), Filled().eval()], ids=["beads", "filled"])
def test_a_smooth_fields_image_at_64_is_its_own_to_40_decibels(volume):
    torch.manual_seed(3)
    rotations = euler_matrix(torch.randn(4, 3))
    renderer = AbsorptionRenderer(64, samples_per_ray=64)
    expected = renderer(volume, rotations)
    found = renderer(VoxelGrid.from_field(volume, 64), rotations)
    assert decibels(found, expected).min() > 40.0
    assert expected.mean() > 0.05


def test_more_voxels_come_closer():
    torch.manual_seed(3)
    volume, renderer = Beads(6, radius=0.15), AbsorptionRenderer(32, samples_per_ray=64)
    expected = renderer(volume, torch.eye(3))
    levels = [decibels(renderer(VoxelGrid.from_field(volume, n), torch.eye(3)), expected).item() for n in (8, 16, 32)]
    assert levels[1] > levels[0] + 6.0
    assert levels[2] > levels[1] + 6.0


def test_voxels_hold_the_field_at_their_centres_in_zyx_order():
    volume = VMGrid([5, 6, 7], 2)
    inside = VoxelGrid.from_field(volume, [5, 6, 7])
    z, y, x = torch.meshgrid(*[(2.0 * torch.arange(n) + 1) / n - 1 for n in (5, 6, 7)], indexing="ij")
    seen = (x * x + y * y + z * z) <= 1.0
    torch.testing.assert_close(inside.dense()[:, seen], volume.dense()[:, seen], rtol=1e-4, atol=1e-5)
    assert inside.to_array().shape == (2, 5, 6, 7)
    assert VoxelGrid.from_field(volume, 4).resolution == (4, 4, 4)
    assert bool((VoxelGrid.from_field(volume, 16).to_array()[0, 0, 0, 0] == 0.0).all())  # a corner, far from the ball


def test_a_part_at_a_time_and_training_mode_restored():
    volume = Filled().train()
    grid = VoxelGrid.from_field(volume, 48)
    assert 0 < volume.most_points <= voxel_grid.POINTS_AT_ONCE < 48**3
    assert volume.training
    assert isinstance(grid, VoxelGrid)


@pytest.mark.parametrize("resolution", [0, 2000, [4, 4], [4, 4, 0]])
def test_bad_resolutions(resolution):
    with pytest.raises(ValueError, match="resolution"):
        VoxelGrid.from_field(VoxelGrid(4), resolution)


# Black and white clumps with hard edges. With attenuation interpolated instead of opacity it was 35 and 23 dB.
@pytest.mark.parametrize(("attenuation", "least"), [(30.0, 40.0), (1000.0, 39.0)])
def test_an_opaque_grids_image_at_64_is_its_own(attenuation, least):
    torch.manual_seed(5)
    clumps, shade = torch.nn.functional.interpolate(torch.randn(1, 2, 3, 3, 3), size=(48, 48, 48), mode="trilinear")[0]
    volume = VoxelGrid.from_array(torch.stack([attenuation * (clumps > 0.5), torch.sigmoid(3.0 * shade)]))
    renderer = AbsorptionRenderer(64, samples_per_ray=64)
    rotations = euler_matrix(torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.5, 0.1], [1.0, -0.7, 0.4]]))
    expected = renderer(volume, rotations)
    assert decibels(renderer(VoxelGrid.from_field(volume, 64), rotations), expected).min() > least
    assert expected.mean() > 0.1


def test_a_grid_is_computed_once_and_not_once_a_part(monkeypatch):
    calls, dense = [], VoxelGrid.dense
    monkeypatch.setattr(VoxelGrid, "dense", lambda self: calls.append(1) or dense(self))
    VoxelGrid.from_field(VoxelGrid(8), 48)
    assert voxel_grid.POINTS_AT_ONCE < 48**3
    assert len(calls) == 1
