"""Grids of voxels: places, proportions, and means over larger voxels."""

import numpy as np
import pytest
import torch

from mnist3d.geometry.grids import grid_size, scaled_size, shares, voxel_centres, voxel_places
from mnist3d.volumes.resampling import resampled


def by_hand(grid, shape):
    """Every voxel cut into as many as the new edge has, then the plain mean of each block: no shares are needed."""
    fine = grid.double()
    for axis, count in enumerate(shape, start=1):
        fine = fine.repeat_interleave(count, dim=axis)
    blocks = [torch.stack([fine[0], fine[0] * fine[1], fine[1]])]
    for axis, count in enumerate(shape, start=1):
        blocks = [block.unflatten(axis, (count, -1)).mean(dim=axis + 1) for block in blocks]
    attenuation, absorbed, absorbance = blocks[0]
    return torch.stack([attenuation, torch.where(attenuation > 0, absorbed / attenuation, absorbance)])


def some_grid(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    grid = torch.rand(2, *shape, generator=generator)
    grid[0] = (grid[0] - 0.5).clamp_min(0.0) * 50.0  # half of it empty
    return grid


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((8, 8, 8), (4, 4, 4)),
        ((5, 7, 9), (3, 2, 4)),  # no whole number of voxels in any part
        ((40, 3, 2), (1, 3, 1)),  # more slices in a part than are taken at once
        ((4, 64, 6), (8, 5, 6)),  # an axis that grows meanwhile
    ],
)
def test_coarser_voxels_hold_the_exact_means(old, new):
    grid = some_grid(old)
    found = resampled(grid, new)
    assert found.dtype == grid.dtype
    # float32, sums of at most some hundred products
    torch.testing.assert_close(found.double(), by_hand(grid, new), rtol=1e-5, atol=1e-6)
    assert float(found[0].mean()) == pytest.approx(float(grid[0].mean()), rel=1e-5)  # no light is lost


def test_in_double_precision_as_well():
    grid = some_grid((5, 6, 7)).double()
    torch.testing.assert_close(resampled(grid, (2, 3, 4)), by_hand(grid, (2, 3, 4)), rtol=1e-12, atol=1e-12)


def test_a_thin_black_wall_in_empty_space_is_not_grey_and_emptiness_keeps_its_absorbance():
    grid = torch.zeros(2, 4, 4, 4)
    grid[:, 1] = torch.tensor([30.0, 1.0])[:, None, None]
    grid[1, 2:] = 0.5  # where nothing is
    found = resampled(grid, (2, 2, 2))
    assert torch.equal(found[:, 0], torch.tensor([15.0, 1.0])[:, None, None].expand(2, 2, 2))
    assert torch.equal(found[:, 1], torch.tensor([0.0, 0.5])[:, None, None].expand(2, 2, 2))


def test_infinite_attenuation_leaves_no_other_voxel_and_no_nan():
    grid = torch.ones(2, 4, 4, 4)
    grid[0, 0, 0, 0], grid[1, 0, 0, 0] = float("inf"), 0.25
    found = resampled(grid, (2, 2, 2))
    assert bool(found.isfinite().all())
    assert found[0, 0, 0, 0] > 1e30
    assert found[1, 0, 0, 0] == pytest.approx(0.25)
    assert torch.equal(found[:, 1], torch.ones(2, 2, 2))


def test_parts_of_a_longer_edge_have_the_voxels_in_the_middle():
    found = shares(2, 3, 2.5)  # from .25 to 2.25; the cuts lie at .83 and 1.67
    expected = torch.tensor([[1.75 / 3, 0.0], [1.25 / 3, 1.25 / 3], [0.0, 1.75 / 3]]) * 3 / 2.5
    torch.testing.assert_close(found.float(), expected)
    assert torch.equal(shares(3, 3), torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(shares(7, 3).sum(dim=1), torch.ones(3, dtype=torch.float64))


def test_centres_and_what_lies_between_them():
    assert voxel_centres(4).tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert voxel_places(np.array([-0.5, 0.0, 1.5, 3.5]), 4).tolist() == [-1.0, -0.75, 0.0, 1.0]


def test_proportions_are_kept_and_no_edge_vanishes():
    assert scaled_size((20, 22, 24), 12) == (10, 11, 12)
    assert scaled_size((1, 8, 64), 16) == (1, 2, 16)


def test_a_resolution_is_one_number_or_three():
    assert grid_size(5) == (5, 5, 5)
    assert grid_size([2, 3, 4]) == (2, 3, 4)
    for wrong in (0, 1025, [4, 4], [4, 4, 0], [4, 4, 4, 4]):
        with pytest.raises(ValueError, match="resolution="):
            grid_size(wrong)
