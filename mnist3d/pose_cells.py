"""Directions that settle on one real picture each, and pull every view near them towards it.

What it is: a partition of the sphere of upright poses into cells, a slow choice of one real picture a cell,
and that picture as a flat plate seen from any pose of the cell. What it is not: no network and no loss; the
trainer decides how strongly the pull counts.

A nearest-picture lookup made anew for every view lets neighbouring views pull towards different pictures, and
what they share blurs. A target a cell makes them agree: within a cell the object is a plate, and the transition
between two digits is squeezed into the border.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .exemplars import blur
from .poses import upright_matrix

GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))


def spread_directions(count: int) -> Float[Tensor, "K 3 3"]:
    """Upright rotations whose directions are spread evenly over the sphere (a Fibonacci lattice)."""
    index = torch.arange(count, dtype=torch.float32)
    elevation = torch.asin(1.0 - (2.0 * index + 1.0) / count)
    return upright_matrix((index * GOLDEN_ANGLE) % (2.0 * math.pi), elevation)


def seen_as_plate(
    pictures: Float[Tensor, "B 1 H W"], view: Float[Tensor, "B 3 3"], cell: Float[Tensor, "B 3 3"]
) -> Float[Tensor, "B 1 H W"]:
    """A flat picture through the world's centre, facing the eye at rotation `cell`, seen at rotation `view`.

    pixel p of the view shows pixel A^-1 p of the picture,   A = upper left 2x2 of view @ cell^T
    """
    turned = (view @ cell.mT)[:, :2, :2]
    theta = torch.cat([torch.linalg.inv(turned), turned.new_zeros(len(turned), 2, 1)], dim=2)
    return F.grid_sample(pictures, F.affine_grid(theta, list(pictures.shape), align_corners=False), align_corners=False)


def seen_from_cell(
    views: Float[Tensor, "B 1 H W"], view: Float[Tensor, "B 3 3"], cell: Float[Tensor, "B 3 3"]
) -> Float[Tensor, "B 1 H W"]:
    """The inverse of `seen_as_plate`: what a plate at `cell` must show to look like the views."""
    return seen_as_plate(views, cell, view)


class PoseCells:
    """One target a cell, chosen by what the cell's views have looked like lately.

    Args:
        count: cells over the sphere.
        images: real pictures, brightness in [0, 1].
        labels: class of each, or None.
        memory: decay of a cell's mean view at each view it sees.
        balance: how strongly a class that has more than its share of the cells is made dear; 0 not at all.
    """

    def __init__(
        self,
        count: int,
        images: Float[Tensor, "N 1 H W"],
        labels: Int[Tensor, " N"] | None,
        memory: float = 0.9,
        balance: float = 0.3,
        stay: float = 0.9,
    ) -> None:
        device = images.device
        self.rotations = spread_directions(count).to(device)
        self.images, self.memory, self.balance, self.stay = images, memory, balance, stay
        self.labels = torch.zeros(len(images), dtype=torch.long, device=device) if labels is None else labels
        self.blurred = blur(images).flatten(1)
        self.means = torch.zeros(count, 1, *images.shape[2:], device=device)
        self.weight = torch.zeros(count, device=device)
        self.target = torch.full((count,), -1, dtype=torch.long, device=device)

    def cell_of(self, rotation: Float[Tensor, "B 3 3"]) -> tuple[Int[Tensor, " B"], Bool[Tensor, " B"]]:
        """The nearest cell of each view, and whether the view is upright there (within 60 degrees of roll)."""
        similarity = torch.einsum("bij,kij->bk", rotation, self.rotations)
        value, cell = similarity.max(dim=1)
        return cell, value > 1.0 + 2.0 * math.cos(math.radians(50.0))

    @torch.no_grad()
    def observe(self, views: Float[Tensor, "B 1 H W"], rotation: Float[Tensor, "B 3 3"]) -> None:
        """Remember what the cells' views look like, seen from the cells' centres."""
        cell, near = self.cell_of(rotation)
        cell, views, rotation = cell[near], views[near], rotation[near]
        flat = seen_from_cell(views, rotation, self.rotations[cell])
        for k, picture in zip(cell.tolist(), flat, strict=True):
            self.weight[k] = self.memory * self.weight[k] + (1.0 - self.memory)
            self.means[k].lerp_(picture, (1.0 - self.memory) / self.weight[k].item())

    @torch.no_grad()
    def choose(self) -> None:
        """Give each cell the real picture nearest to its mean view; stay unless another is clearly nearer."""
        query = blur(self.means).flatten(1)
        cost = torch.cdist(query, self.blurred).square()  # (K, N)
        classes = int(self.labels.max()) + 1
        price = torch.zeros(classes, device=cost.device)
        seen = self.weight > 0
        scale = cost[seen].min(dim=1).values.mean() if bool(seen.any()) else cost.new_ones(())
        best = cost.argmin(dim=1)
        for _ in range(30 if self.balance > 0 else 0):
            best = (cost + price[self.labels]).argmin(dim=1)
            share = torch.bincount(self.labels[best[seen]], minlength=classes) / max(int(seen.sum()), 1)
            price += self.balance * scale * 0.2 * (share * classes - 1.0)
        total = cost + price[self.labels]
        rows = torch.arange(len(cost), device=cost.device)
        keep = (self.target >= 0) & (total[rows, self.target.clamp_min(0)] * self.stay < total[rows, best])
        self.target = torch.where(keep, self.target, best)
        self.target[~seen] = -1

    def targets(self, rotation: Float[Tensor, "B 3 3"]) -> tuple[Float[Tensor, "B 1 H W"], Bool[Tensor, " B"]]:
        """What each view should look like, and where that is known."""
        cell, near = self.cell_of(rotation)
        known = near & (self.target[cell] >= 0)
        pictures = seen_as_plate(self.images[self.target[cell]], rotation, self.rotations[cell])
        return pictures, known
