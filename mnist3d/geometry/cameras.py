"""Orthographic cameras: which world points the pixels of a view look through.

The map from a rotation to rays, in the conventions of `docs/conventions.md` (x right, y down, z away from the eye).
Sampling along the rays is left to the renderer.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def camera_to_world(points: Float[Tensor, "*P 3"], rotation: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B *P 3"]:
    """Points given in camera coordinates, in world coordinates: x_world = R^T x_camera.

    Args:
        points: camera coordinates, world units.
        rotation: x_camera = rotation @ x_world, one a view.

    Returns:
        World coordinates, one set a view.

    Gradients:
        To both arguments.
    """
    world = torch.einsum("pc,bcx->bpx", points.reshape(-1, 3), rotation)
    return world.reshape(rotation.shape[0], *points.shape)


def orthographic_rays(
    rotation: Float[Tensor, "B 3 3"], image_size: int
) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B 3"]]:
    """The ray of every pixel: where it crosses the plane through the world's origin, and its direction.

        ray(t) = origin + t * direction,   t in [-1, 1] covers the unit ball

    Args:
        rotation: x_camera = rotation @ x_world.
        image_size: pixels along each edge of the image of [-1, 1]^2.

    Returns:
        Origins (v-major, as the image) and unit directions, away from the eye; world units.

    Gradients:
        To the rotation.
    """
    centre = (2.0 * torch.arange(image_size, dtype=rotation.dtype, device=rotation.device) + 1.0) / image_size - 1.0
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    origins = camera_to_world(torch.stack([u, v, torch.zeros_like(u)], dim=-1), rotation)
    return origins, rotation[:, 2, :]
