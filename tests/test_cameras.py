"""Rays and the conventions they fix."""

import torch

from mnist3d.geometry.cameras import camera_to_world, orthographic_rays
from mnist3d.geometry.rotations import euler_matrix


def test_identity_looks_along_z_with_x_right_and_y_down():
    origins, direction = orthographic_rays(torch.eye(3)[None], 4)
    assert direction.tolist() == [[0.0, 0.0, 1.0]]
    assert origins[0, 0, 0].tolist() == [-0.75, -0.75, 0.0]  # upper left: x small, y small
    assert origins[0, 0, 3].tolist() == [0.75, -0.75, 0.0]  # upper right: x large
    assert origins[0, 3, 0].tolist() == [-0.75, 0.75, 0.0]  # lower left: y large


def test_world_goes_back_to_camera():
    rotation = euler_matrix(torch.tensor([[0.3, -1.1, 0.7], [2.0, 0.1, 0.0]], dtype=torch.float64))
    points = torch.randn(5, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    world = camera_to_world(points, rotation)
    assert world.shape == (2, 5, 2, 3)
    back = torch.einsum("bij,bpqj->bpqi", rotation, world)
    assert torch.allclose(back, points.expand(2, 5, 2, 3), atol=1e-12)


def test_rays_keep_their_distance_from_the_centre():
    rotation = euler_matrix(torch.tensor([[1.0, 2.0, 3.0]]))
    origins, direction = orthographic_rays(rotation, 5)
    flat, _ = orthographic_rays(torch.eye(3)[None], 5)
    assert torch.allclose(origins.norm(dim=-1), flat.norm(dim=-1), atol=1e-6)
    assert torch.allclose((origins * direction[:, None, None]).sum(-1), torch.zeros(1, 5, 5), atol=1e-6)
