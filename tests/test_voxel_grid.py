"""The dense backend."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mnist3d.volumes.voxel_grid import VoxelGrid


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


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2, 2, 2)), r"shape \(3, 2, 2, 2\)"),
        (np.zeros((2, 2, 2)), "shape"),
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
        "init": None,
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
