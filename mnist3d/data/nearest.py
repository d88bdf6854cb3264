"""The real image nearest to a view, within a class: what the nearest-image loss compares with.

An exhaustive search by blurred squared distance, on the device of the images.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .registration import blur

BLURRED_AT_ONCE = 1024
CANDIDATES_AT_ONCE = 16384  # bounds the memory of the distances for big data sets


class Exemplars:
    """Real images, prepared for looking up the nearest one.

    Args:
        images: brightness in [0, 1].
        labels: class of each, or None: then all are one class.
    """

    def __init__(self, images: Float[Tensor, "N 1 H W"], labels: Int[Tensor, " N"] | None) -> None:
        self.images = images
        self.labels = torch.zeros(len(images), dtype=torch.long, device=images.device) if labels is None else labels
        order = self.labels.argsort(stable=True)
        # In parts: a convolution of one channel takes sixteen times its images' memory.
        self.blurred = torch.cat([blur(part) for part in images.split(BLURRED_AT_ONCE)]).flatten(1)[order]
        self.norms = self.blurred.square().sum(dim=1)
        self.order = order
        counts = torch.bincount(self.labels)
        ends = counts.cumsum(0).tolist()
        self.ranges = list(zip([0, *ends[:-1]], ends, strict=True))

    @torch.no_grad()
    def nearest(
        self, views: Float[Tensor, "B 1 H W"], classes: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B 1 H W"]:
        """For each view the real image of its class with the smallest squared distance, both blurred.

        Args:
            views: brightness in [0, 1].
            classes: where to look for each view; None: everywhere. A class without images: everywhere.

        Gradients:
            None: a target is a constant.
        """
        query = blur(views).flatten(1)
        chosen = torch.zeros(len(views), dtype=torch.long, device=views.device)
        for k in [None] if classes is None else classes.unique().tolist():
            begin, end = (0, len(self.order)) if k is None or k >= len(self.ranges) else self.ranges[k]
            if begin == end:
                begin, end = 0, len(self.order)
            members = torch.arange(len(views), device=views.device) if k is None else (classes == k).nonzero()[:, 0]
            best = torch.full((len(members),), torch.inf, device=views.device)
            for low in range(begin, end, CANDIDATES_AT_ONCE):
                high = min(low + CANDIDATES_AT_ONCE, end)
                # |q - r|^2 without |q|^2, which is the same for all candidates
                distance = self.norms[low:high] - 2.0 * query[members] @ self.blurred[low:high].mT
                value, index = distance.min(dim=1)
                nearer = value < best
                chosen[members[nearer]] = self.order[low + index[nearer]]
                best = torch.minimum(best, value)
        return self.images[chosen]
