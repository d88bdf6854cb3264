"""The pull of each view towards the nearest real picture, strongest on the classes that are hardest to draw.

What it is: exemplars, a running figure a class, and the loss. What it is not: no schedule; the trainer weighs it.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .exemplars import Exemplars
from .plates import tilted

# Of the running mean, for each view of the class: some 50 views.
MEMORY = 0.98
# Tilted copies of each real picture, where the exemplars stay this few: every step looks through all of a class.
COPIES, MOST_EXEMPLARS = 2, 20_000
MOST_PIXELS = MOST_EXEMPLARS * 28 * 28
TILTED_AT_ONCE = 1024


class NearestPull(nn.Module):
    """Mean absolute difference between views and the real pictures nearest to them, classes weighted.

    Classes differ in how well views come to resemble them: a 1 is soon drawn, an 8 or a 2 needs more than the volume
    gives it, and all share its voxels. A view weighs

        (r_k / mean_j r_j)^focus,   r_k = running mean over class k of  mean |view - x| / mean x

    which moves the balance to the classes that are behind, as group DRO does (Sagawa et al. 2020).

    Args:
        images: brightness in [0, 1].
        labels: class of each, or None: then all are one class.
        num_classes: K, 0 without labels.
        focus: the power, >= 0; 0 weighs all alike.
        tilt: degrees, 0 to 60: exemplars are also seen from random directions near their normals (`plates.tilted`).
            The same ones always, so that a resumed run finds them again.

    Its state (`state_dict`) is the running means.
    """

    gaps: Float[Tensor, " K"]

    def __init__(
        self,
        images: Float[Tensor, "N 1 H W"],
        labels: Int[Tensor, " N"] | None,
        num_classes: int,
        *,
        focus: float = 0.0,
        tilt: float = 0.0,
    ) -> None:
        super().__init__()
        self.focus = focus
        room = min(MOST_EXEMPLARS // len(images), MOST_PIXELS // images.numel())
        copies = max(0, min(COPIES, room - 1)) if tilt > 0 else 0
        generator = torch.Generator().manual_seed(0)
        parts = images.split(TILTED_AT_ONCE) * copies
        every = [images, *(tilted(part, tilt, generator) for part in parts)]
        self.exemplars = Exemplars(torch.cat(every), None if labels is None else labels.repeat(1 + copies))
        self.register_buffer("gaps", images.new_ones(max(num_classes, 1)))

    def forward(self, views: Float[Tensor, "B 1 H W"], logits: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
        """The loss, at least 0; moves the running means.

        Args:
            views: brightness in [0, 1].
            logits: of the class head, K = 0 without one; the largest says which class a view is pulled to.

        Gradients:
            To the views; the exemplars and the weights are constants.
        """
        kind = logits.argmax(dim=1) if logits.shape[1] else None
        targets = self.exemplars.nearest(views.detach(), kind)
        difference = (views - targets).abs().mean(dim=(1, 2, 3))
        if kind is None or self.focus == 0.0:
            return difference.mean()
        self._remember(kind, difference.detach() / targets.mean(dim=(1, 2, 3)).clamp_min(1e-3))
        weight = (self.gaps / self.gaps.mean()) ** self.focus
        return (weight[kind] * difference).mean()

    def _remember(self, kind: Int[Tensor, " B"], relative: Float[Tensor, " B"]) -> None:
        count = torch.bincount(kind, minlength=len(self.gaps)).to(relative.dtype)
        total = torch.zeros_like(self.gaps).index_add_(0, kind, relative)
        mean = torch.where(count > 0, total / count.clamp_min(1.0), self.gaps)
        self.gaps.lerp_(mean, 1.0 - MEMORY**count)
