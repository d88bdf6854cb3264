"""The real image nearest to a view, within a class: what the nearest-image loss compares with.

An exhaustive search by blurred squared distance, on the device of the images.
"""

import torch
import torch.nn.functional as F
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
        self.order = self.labels.argsort(stable=True)
        # In parts: a convolution of one channel takes sixteen times its images' memory.
        self.blurred = torch.cat([blur(part) for part in images.split(BLURRED_AT_ONCE)]).flatten(1)[self.order]
        self.norms = self.blurred.square().sum(dim=1)
        self.ordered_labels = self.labels[self.order]
        counts = torch.bincount(self.labels)
        # Of each class, and of any beyond: where it is looked for, -1 everywhere.
        numbers = torch.arange(len(counts) + 1, device=images.device)
        self.sought = torch.where(F.pad(counts, (0, 1)) > 0, numbers, -1)
        ends = counts.cumsum(0).tolist()
        self.ranges = list(zip([0, *ends[:-1]], ends, strict=True))

    @torch.no_grad()
    def nearest(
        self, views: Float[Tensor, "B 1 H W"], classes: Int[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B 1 H W"]:
        """For each view the real image of its class with the smallest squared distance, both blurred.

        Args:
            views: brightness in [0, 1].
            classes: where to look for each view, >= 0; None: everywhere. A class without images: everywhere.

        Gradients:
            None: a target is a constant.
        """
        query = blur(views).flatten(1)
        if classes is None:
            place = self._first(query, 0, len(self.order))
        elif views.device.type == "cpu":
            place = self._within_each(query, classes)
        else:
            place = self._within_all(query, classes)
        return self.images[self.order[place]]

    def _within_each(self, query: Float[Tensor, "B P"], classes: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """A product for each class: the least arithmetic, which is what a CPU's time goes into."""
        ordered, order = classes.sort(stable=True)
        found, counts = ordered.unique_consecutive(return_counts=True)
        places = []
        for k, views in zip(found.tolist(), query[order].split(counts.tolist()), strict=True):
            begin, end = self.ranges[k] if k < len(self.ranges) else (0, 0)
            places.append(self._first(views, *((begin, end) if begin < end else (0, len(self.order)))))
        return torch.empty_like(order).scatter_(0, order, torch.cat(places))

    def _within_all(self, query: Float[Tensor, "B P"], classes: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """One product with all images: ten times the arithmetic, a tenth of the launches, and no class has to be
        known on the host, which would wait for it."""
        return self._first(query, 0, len(self.order), self.sought[classes.clamp_max(len(self.sought) - 1)])

    def _first(
        self, query: Float[Tensor, "Q P"], begin: int, end: int, classes: Int[Tensor, " Q"] | None = None
    ) -> Int[Tensor, " Q"]:
        """Place of the nearest candidate, the first one of several.

        Args:
            query: blurred views.
            begin: first candidate, in the order of classes.
            end: after the last.
            classes: the one that counts for each view; -1: all count. None: all count for all.
        """
        best = place = None
        for low in range(begin, end, CANDIDATES_AT_ONCE):
            part = slice(low, min(low + CANDIDATES_AT_ONCE, end))
            # |q - r|^2 without |q|^2, which is the same for all candidates
            distance = torch.addmm(self.norms[part], query, self.blurred[part].mT, alpha=-2.0)
            if classes is not None:
                others = (classes[:, None] != self.ordered_labels[part]) & (classes[:, None] >= 0)
                distance.masked_fill_(others, torch.inf)
            value, index = distance.min(dim=1)
            if best is None or place is None:
                best, place = value, low + index if low else index
            else:
                place = torch.where(value < best, low + index, place)
                best = torch.minimum(best, value)
        assert place is not None  # a data set is not empty
        return place
