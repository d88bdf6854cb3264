"""Class diversity: sure of each view, undecided about the batch."""

import torch
from jaxtyping import Float
from torch import Tensor

from ..gan_losses import Scalar


def class_diversity_loss(logits: Float[Tensor, "B K"]) -> Scalar:
    """Sure of each picture, undecided about the batch: low when every view is one class and all classes occur.

        loss = 2 * sum_k m_k log m_k + mean_b H(p_b),   p = softmax(logits),   m = mean_b p_b

    Args:
        logits: of the class head, on the rendered pictures.

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
    log_mean = log_p.logsumexp(dim=0) - torch.log(torch.tensor(float(logits.shape[0]), device=logits.device))
    batch = (log_mean.exp() * log_mean).sum()
    single = -(p * log_p).sum(dim=1).mean()
    return 2.0 * batch + single
