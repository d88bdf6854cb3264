"""Any volume as voxels: the same picture."""

import pytest
import torch
from test_volume_contract import Beads  # pyright: ignore[reportAttributeAccessIssue]

from mnist3d.geometry.rotations import euler_matrix
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.volumes import VMGrid
from mnist3d.volumes import voxel_grid as voxelize
from mnist3d.volumes.base import Volume
from mnist3d.volumes.voxel_grid import VoxelGrid


def decibels(found, expected):
    """Peak signal-to-noise ratio of pictures in [0, 1]."""
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
def test_a_smooth_fields_picture_at_64_is_its_own_to_40_decibels(volume):
    torch.manual_seed(3)
    rotations = euler_matrix(torch.randn(4, 3))
    renderer = AbsorptionRenderer(64, samples_per_ray=64)
    expected = renderer(volume, rotations)
    found = renderer(volume.voxelize(64), rotations)
    assert decibels(found, expected).min() > 40.0
    assert expected.mean() > 0.05


def test_more_voxels_come_closer():
    torch.manual_seed(3)
    volume, renderer = Beads(6, radius=0.15), AbsorptionRenderer(32, samples_per_ray=64)
    expected = renderer(volume, torch.eye(3))
    levels = [decibels(renderer(volume.voxelize(n), torch.eye(3)), expected).item() for n in (8, 16, 32)]
    assert levels[1] > levels[0] + 6.0
    assert levels[2] > levels[1] + 6.0


def test_voxels_hold_the_field_at_their_centres_in_zyx_order():
    volume = VMGrid([5, 6, 7], 2)
    inside = voxelize.voxelize(volume, [5, 6, 7])
    z, y, x = torch.meshgrid(*[(2.0 * torch.arange(n) + 1) / n - 1 for n in (5, 6, 7)], indexing="ij")
    seen = (x * x + y * y + z * z) <= 1.0
    torch.testing.assert_close(inside.dense()[:, seen], volume.dense()[:, seen], rtol=1e-4, atol=1e-5)
    assert inside.to_array().shape == (2, 5, 6, 7)
    assert volume.voxelize(4).resolution == (4, 4, 4)
    assert bool((volume.voxelize(16).to_array()[0, 0, 0, 0] == 0.0).all())  # a corner, far from the ball


def test_a_part_at_a_time_and_training_mode_restored():
    volume = Filled().train()
    grid = volume.voxelize(48)
    assert 0 < volume.most_points <= voxelize.POINTS_AT_ONCE < 48**3
    assert volume.training
    assert isinstance(grid, VoxelGrid)


@pytest.mark.parametrize("resolution", [0, 2000, [4, 4], [4, 4, 0]])
def test_bad_resolutions(resolution):
    with pytest.raises(ValueError, match="resolution"):
        VoxelGrid(4).voxelize(resolution)


# Black and white clumps with hard edges. With attenuation interpolated instead of opacity it was 35 and 23 dB.
@pytest.mark.parametrize(("attenuation", "least"), [(30.0, 40.0), (1000.0, 39.0)])
def test_an_opaque_grids_picture_at_64_is_its_own(attenuation, least):
    torch.manual_seed(5)
    clumps, shade = torch.nn.functional.interpolate(torch.randn(1, 2, 3, 3, 3), size=(48, 48, 48), mode="trilinear")[0]
    volume = VoxelGrid.from_array(torch.stack([attenuation * (clumps > 0.5), torch.sigmoid(3.0 * shade)]))
    renderer = AbsorptionRenderer(64, samples_per_ray=64)
    rotations = euler_matrix(torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.5, 0.1], [1.0, -0.7, 0.4]]))
    expected = renderer(volume, rotations)
    assert decibels(renderer(volume.voxelize(64), rotations), expected).min() > least
    assert expected.mean() > 0.1


def test_a_grid_is_computed_once_and_not_once_a_part(monkeypatch):
    calls, dense = [], VoxelGrid.dense
    monkeypatch.setattr(VoxelGrid, "dense", lambda self: calls.append(1) or dense(self))
    VoxelGrid(8).voxelize(48)
    assert voxelize.POINTS_AT_ONCE < 48**3
    assert len(calls) == 1
