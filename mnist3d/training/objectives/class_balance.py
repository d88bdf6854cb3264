"""Class balance over all directions: views of classes that fill more than their part of the sphere are penalised."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...geometry.rotations import PoseOptions, sphere_weights
from .base import Batch, Objective, check_weight

MEMORY = 0.99  # of the running shares, a step: some hundred steps
TINY = 1e-3  # a class that is nowhere has a finite weight


@dataclass
class ClassBalanceOptions:
    """All classes should fill an equal share of all directions, sides and rear included.

    Args:
        weight: Weight of the class balance loss, >= 0. Needs labels, a discriminator, and poses.sphere_share > 0 with
            euler_normal.
    """

    weight: float = 0.0

    def __post_init__(self) -> None:
        check_weight("class_balance.weight", self.weight)


class ClassBalance(Objective):
    """A weight for each class, by how much of all directions the class has; a view's loss is the weight of its class.

    Views are drawn mostly from in front, so evenness in a step's views leaves the rear to one digit or two. Here

        a_k  = log(K s_k),   s_k = running share of class k, views weighted by what they stand for
        loss = mean_b w_b sum_k p_bk a_k,   p = softmax(logits)

    which is the slope of the negative entropy sum_k s_k log(K s_k) at the running shares, up to a constant. The same
    entropy of one step's views would be that of the few that weigh most, and would ask each of those to be undecided.

    Args:
        classes: K, at least 1.
        poses: the distribution that the run draws its rotations from: it says what each view stands for.
        options: the weight.

    Its state is the running shares.

    Raises:
        ValueError: the distribution never looks at sides and rear, so that no view could stand for them.

    Source:
        The entropy is the batch term of Krause, Perona & Gomes (2010), "Discriminative clustering by regularized
        information maximization", eq. 3; its slope at running shares is ours.
    """

    name = "class_balance"
    shares: Float[Tensor, " K"]

    def __init__(
        self, classes: int, poses: PoseOptions | None = None, options: ClassBalanceOptions | None = None
    ) -> None:
        super().__init__()
        self.options, self.poses = options or ClassBalanceOptions(), poses or PoseOptions()
        if self.poses.leaves_directions_out:
            raise ValueError(
                f"class_balance.weight={self.options.weight:g}: with poses.sphere_share=0 no view comes from "
                "everywhere; raise that share, or set class_balance.weight=0"
            )
        self.register_buffer("shares", torch.full((classes,), 1.0 / classes))

    def loss(self, batch: Batch) -> Float[Tensor, ""] | None:
        """The weighted loss at the shares so far; the views then move the shares. None without a class head."""
        if batch.class_logits is None or not batch.class_logits.shape[1]:
            return None
        return self.options.weight * self.balance_loss(batch.class_logits, sphere_weights(batch.rotations, self.poses))

    def balance_loss(self, logits: Float[Tensor, "B K"], weights: Float[Tensor, " B"]) -> Float[Tensor, ""]:
        """The loss before its weight; moves the running shares.

        Args:
            logits: of the class head, on the views.
            weights: what each view stands for, >= 0, about 1 in the mean.

        Gradients:
            To the logits. The classes' and the views' weights are constants.
        """
        class_weights = (self.shares / self.shares.mean()).clamp_min(TINY).log()
        p = logits.softmax(dim=1)
        with torch.no_grad():
            self.shares.lerp_((weights[:, None] * p).mean(dim=0), 1.0 - MEMORY)
        return (weights * (p @ class_weights)).mean()

    def metrics(self) -> dict[str, Any]:
        """Running share of each class over all directions, as the class head reads them."""
        return {"shares_everywhere": F.normalize(self.shares, p=1.0, dim=0)}
