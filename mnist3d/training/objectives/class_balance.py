"""Prices on the classes that fill more than their part of all directions.

What it is: running shares of the classes and a loss that follows from them. What it is not: it draws no views and knows
no pose; what a view stands for is given with it.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

MEMORY = 0.99  # of the running shares, a step: some hundred steps
TINY = 1e-3  # a class that is nowhere has a finite price


class ClassPrices(nn.Module):
    """What it costs a view to be of a class, by how much of all directions that class has.

    Views are drawn mostly from in front, so evenness in a step's views leaves the rear to one digit or two. Here

        price_k = log(K s_k),   s_k = running share of class k, views weighed by what they stand for
        loss    = mean_b w_b sum_k p_bk price_k

    which is the slope of the negative entropy sum_k s_k log(K s_k) at the running shares, up to a constant. The same
    entropy of one step's views would be that of the few that weigh most, and would ask each of those to be undecided.

    Args:
        classes: K, at least 1.

    Its state (`state_dict`) is the running shares.

    Source:
        The entropy is the batch term of Krause, Perona & Gomes (2010), "Discriminative clustering by regularized
        information maximization", eq. 3; its slope at running shares is ours.
    """

    shares: Float[Tensor, " K"]

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("shares", torch.full((classes,), 1.0 / classes))

    def forward(self, logits: Float[Tensor, "B K"], weights: Float[Tensor, " B"]) -> Float[Tensor, ""]:
        """The loss at the prices so far; the views then move the running shares.

        Args:
            logits: of the class head, on the rendered pictures.
            weights: what each picture stands for, >= 0, about 1 in the mean.

        Gradients:
            To the logits. Prices and weights are constants.
        """
        prices = (self.shares / self.shares.mean()).clamp_min(TINY).log()
        p = logits.softmax(dim=1)
        with torch.no_grad():
            self.shares.lerp_((weights[:, None] * p).mean(dim=0), 1.0 - MEMORY)
        return (weights * (p @ prices)).mean()
