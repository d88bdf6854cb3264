"""The pull of each view towards the nearest real picture, strongest on the classes that are hardest to draw.

What it is: exemplars and the loss. What it is not: no schedule; the trainer weighs it.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .class_vote import ClassVote
from .exemplars import Exemplars, blur
from .group_weights import GroupWeights
from .plates import tilted
from .registration import registered

# Tilted copies of each real picture, where the exemplars stay this few: every step looks through all of a class.
COPIES, MOST_EXEMPLARS = 2, 20_000
MOST_PIXELS = MOST_EXEMPLARS * 28 * 28
TILTED_AT_ONCE = 1024


class NearestPull(nn.Module):
    """Difference between views and the real pictures nearest to them, classes weighted.

        loss = mean weight_k * 2 w |m| ((1 - s) + 2 s |m|),    m = x - view,   w = q where m > 0, else 1 - q

    with x the nearest real picture. At s = 0 and q = .5 that is the absolute difference, whose best answer to several x
    is their median: dark, where strokes lie a pixel apart. Views then lose a quarter of their light; a somewhat larger
    quantile q keeps it (the pinball loss of quantile regression, Koenker & Bassett 1978). At s = 1 it is the same of
    squares (the expectiles of Newey & Powell 1987): it leaves several x open, as grey, where an absolute difference
    decides; good while it is not settled which digit shows where, and ghosts at the end.

    x is of the class that the views around vote for (`ClassVote`), and of its nearest pictures the one that is nearest
    after it was moved, turned and stretched a little to meet the view (`registered`): what is asked of a view is to
    become some digit, not to lie in a certain place, and neighbouring views ask less of each other.

    A view weighs what its class does in `GroupWeights`: more, the further the class is behind.

    Args:
        images: brightness in [0, 1].
        labels: class of each, or None: then all are one class.
        num_classes: K, 0 without labels.
        focus: of `GroupWeights`, >= 0; 0 weighs all classes alike.
        quantile: q, in (0, 1); above .5 missing light counts more than light where there should be none.
        registration: of `registered`, >= 0; 0 leaves the real pictures as they are.
        candidates: real pictures that are registered, at least 1; the one that then is nearest is x.
        neighbourhood: of `ClassVote`, radians, >= 0; 0 lets each view decide alone.
        balance: of `ClassVote`, >= 0.
        tilt: degrees, 0 to 60: exemplars are also seen from random directions near their normals (`plates.tilted`).
            The same ones always, so that a resumed run finds them again.

    Its state (`state_dict`) is the running means of the classes and the memory of the vote.
    """

    def __init__(
        self,
        images: Float[Tensor, "N 1 H W"],
        labels: Int[Tensor, " N"] | None,
        num_classes: int,
        *,
        focus: float = 0.0,
        quantile: float = 0.5,
        registration: float = 0.0,
        candidates: int = 1,
        neighbourhood: float = 0.0,
        balance: float = 0.0,
        tilt: float = 0.0,
    ) -> None:
        super().__init__()
        self.quantile, self.registration, self.candidates = quantile, registration, candidates
        room = min(MOST_EXEMPLARS // len(images), MOST_PIXELS // images.numel())
        copies = max(0, min(COPIES, room - 1)) if tilt > 0 else 0
        generator = torch.Generator().manual_seed(0)
        parts = images.split(TILTED_AT_ONCE) * copies
        every = [images, *(tilted(part, tilt, generator) for part in parts)]
        self.exemplars = Exemplars(torch.cat(every), None if labels is None else labels.repeat(1 + copies))
        self.weights = GroupWeights(max(num_classes, 1), focus).to(images)
        self.vote = ClassVote(max(num_classes, 1), neighbourhood if num_classes else 0.0, balance).to(images)

    def forward(
        self,
        views: Float[Tensor, "B 1 H W"],
        logits: Float[Tensor, "B K"],
        rotations: Float[Tensor, "B 3 3"],
        squared: float = 0.0,
    ) -> Float[Tensor, ""]:
        """The loss, at least 0; moves the running means and the memory.

        Args:
            views: brightness in [0, 1].
            logits: of the class head, K = 0 without one.
            rotations: from where each view was seen.
            squared: s, [0, 1].

        Gradients:
            To the views; the exemplars, the classes and the weights are constants.
        """
        kind = self.vote(rotations, logits) if logits.shape[1] else None
        targets = self._targets(views.detach(), kind)
        missing = targets - views
        size = missing.abs()
        sided = torch.where(missing.detach() > 0, self.quantile, 1.0 - self.quantile)
        pull = 2.0 * (sided * size * ((1.0 - squared) + 2.0 * squared * size)).mean(dim=(1, 2, 3))
        if kind is None:
            return pull.mean()
        return (self.weights(kind, size.detach().mean(dim=(1, 2, 3)), targets) * pull).mean()

    @torch.no_grad()
    def _targets(self, views: Float[Tensor, "B 1 H W"], kind: Int[Tensor, " B"] | None) -> Float[Tensor, "B 1 H W"]:
        """For each view that of its nearest real pictures which is nearest once registered, registered."""
        near = self.exemplars.nearest(views, kind, self.candidates)
        repeated = views.repeat_interleave(self.candidates, dim=0)
        moved = registered(near.flatten(0, 1), repeated, self.registration)
        far = (blur(moved) - blur(repeated)).square().sum(dim=(1, 2, 3)).view(near.shape[:2])
        return moved.view_as(near)[torch.arange(len(views), device=views.device), far.argmin(dim=1)]
