"""Class diversity: sure of each view, undecided about the batch."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Batch, Objective, check_weight


@dataclass
class DiversityOptions:
    """Each view should show one class, and the views of a step all classes.

    Args:
        weight: Weight of the class diversity loss, >= 0. Needs labels and a discriminator.
    """

    weight: float = 0.3

    def __post_init__(self) -> None:
        check_weight("diversity.weight", self.weight)


class Diversity(Objective):
    """`class_diversity_loss` of what the discriminator's class head reads in the views.

    Args:
        options: its weight.
    """

    name = "diversity"

    def __init__(self, options: DiversityOptions | None = None) -> None:
        super().__init__()
        self.options = options or DiversityOptions()
        self._last: Tensor | float = 0.0

    def loss(self, batch: Batch) -> Float[Tensor, ""] | None:
        """See `class_diversity_loss`; None where the class head reads nothing."""
        if batch.class_logits is None or not batch.class_logits.shape[1] or self.options.weight == 0.0:
            return None
        loss = class_diversity_loss(batch.class_logits)
        self._last = loss.detach()
        return self.options.weight * loss

    def metrics(self) -> dict[str, Any]:
        """The loss before its weight."""
        return {"diversity_loss": self._last}


def class_diversity_loss(logits: Float[Tensor, "B K"]) -> Float[Tensor, ""]:
    """Sure of each view, undecided about the batch: low when every view is one class and all classes occur.

        loss = 2 * sum_k m_k log m_k + mean_b H(p_b),   p = softmax(logits),   m = mean_b p_b

    Args:
        logits: of the class head, on the rendered views.

    Returns:
        A scalar, at least -2 log K.

    Gradients:
        To the logits; finite for probabilities that underflow.

    Source:
        Information maximisation, Krause, Perona, Gomes (2010), eq. 3, with the batch term doubled.
    """
    log_p = logits.log_softmax(dim=1)
    p = log_p.exp()
    # log of the mean, computed on logarithms so that a class with probability 0 keeps a finite gradient
    log_mean = log_p.logsumexp(dim=0) - torch.log(torch.tensor(float(logits.shape[0]), device="cpu"))
    batch = torch.dot(log_mean.exp(), log_mean)
    return 2.0 * batch - torch.dot(p.flatten(), log_p.flatten()) / len(logits)
