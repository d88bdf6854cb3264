"""Soft balls as a field."""

import torch

from mnist3d.volumes.base import Volume


class Beads(Volume):
    """A few soft balls.

    Args:
        count: Number of balls, 1 to 1000.
        radius: Of each at the start, world units, above 0.
        colours: Brightness of each at the start, repeated as often as needed.
    """

    def __init__(self, count: int = 20, radius: float = 0.2, colours: list[float] | None = None) -> None:
        super().__init__()
        if not 1 <= count <= 1000:
            raise ValueError(f"count={count}: must be in [1, 1000]")
        palette = torch.tensor(colours or [0.3, 0.6, 0.9])
        self.centres = torch.nn.Parameter(0.3 * torch.randn(count, 3))
        self.log_radius = torch.nn.Parameter(torch.full((count,), radius).log())
        self.raw_brightness = torch.nn.Parameter(palette.repeat(count)[:count].logit())

    def forward(self, points):
        distances = (points[..., None, :] - self.centres).square().sum(dim=-1)
        presence = torch.exp(-0.5 * distances / (2.0 * self.log_radius).exp())
        brightness = (presence * self.raw_brightness.sigmoid()).sum(dim=-1) / (presence.sum(dim=-1) + 1e-6)
        return 10.0 * presence.sum(dim=-1), 1.0 - brightness


class Bowl:
    """No volume."""
