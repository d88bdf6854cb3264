"""Where the samples of an orthographic ray through the unit ball lie, and how much of the ball each stands for."""

import torch
from jaxtyping import Float
from torch import Tensor


def ball_quadrature(
    image_size: int,
    num_samples: int,
    *,
    rows: slice = slice(None),
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Float[Tensor, "H W S 3"], Float[Tensor, "H W S"]]:
    """Sample points in camera coordinates and their share of a full step.

    [-1, 1] is cut into S equal steps; each is clipped to the chord of the unit ball and sampled in the
    middle of the clipped part (midpoint rule), so a sample never lies outside the ball. The camera
    coordinates do not depend on the rotation, which makes the set of samples the same for every view.

    Args:
        image_size: pixels along each edge.
        num_samples: S, steps on the diameter.
        rows: H of them, of the image.
        dtype: of the result.
        device: of the result.

    Returns:
        Points (u right, v down, t away from the eye), and shares in [0, 1]: clipped length / (2 / S),
        0 where the step misses the ball.
    """
    centre = (2.0 * torch.arange(image_size, dtype=dtype, device=device) + 1.0) / image_size - 1.0
    edge = 2.0 * torch.arange(num_samples + 1, dtype=dtype, device=device) / num_samples - 1.0
    v, u = torch.meshgrid(centre[rows], centre, indexing="ij")
    half_chord = (1.0 - u * u - v * v).clamp_min(0.0).sqrt()[..., None]
    near = torch.maximum(edge[:-1], -half_chord)
    far = torch.minimum(edge[1:], half_chord)
    share = (far - near).clamp_min(0.0) * (num_samples / 2.0)
    depth = torch.where(share > 0, 0.5 * (near + far), torch.zeros_like(near))
    points = torch.stack([u[..., None].expand_as(depth), v[..., None].expand_as(depth), depth], dim=-1)
    return points, share
