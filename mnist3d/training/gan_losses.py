"""GAN losses and penalties as pure functions of scores, logits and images.

Tensors in, a scalar out. A pairing of real and rendered scores is a pair of functions in the table
`ADVERSARIAL_LOSSES`.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Pairing = Literal["relativistic", "non_saturating", "hinge", "wasserstein"]
Scores = Float[Tensor, " B"]
Scalar = Float[Tensor, ""]


def relativistic_discriminator_loss(real: Scores, rendered: Scores) -> Scalar:
    """mean softplus(D(rendered) - D(real)), paired: Jolicoeur-Martineau 2018; R3GAN (Huang et al. 2024), eq. 2."""
    return F.softplus(rendered - real).mean()


def relativistic_volume_loss(real: Scores, rendered: Scores) -> Scalar:
    """mean softplus(D(real) - D(rendered)): the other side of `relativistic_discriminator_loss`."""
    return F.softplus(real - rendered).mean()


def non_saturating_discriminator_loss(real: Scores, rendered: Scores) -> Scalar:
    """mean softplus(-D(real)) + softplus(D(rendered)): Goodfellow et al. 2014, eq. 1."""
    return F.softplus(-real).mean() + F.softplus(rendered).mean()


def non_saturating_volume_loss(real: Scores, rendered: Scores) -> Scalar:
    """mean softplus(-D(rendered)): Goodfellow et al. 2014, section 3."""
    return F.softplus(-rendered).mean()


def hinge_discriminator_loss(real: Scores, rendered: Scores) -> Scalar:
    """mean relu(1 - D(real)) + relu(1 + D(rendered)): Lim & Ye 2017."""
    return F.relu(1.0 - real).mean() + F.relu(1.0 + rendered).mean()


def wasserstein_discriminator_loss(real: Scores, rendered: Scores) -> Scalar:
    """mean D(rendered) - D(real): Arjovsky et al. 2017; needs a gradient penalty."""
    return rendered.mean() - real.mean()


def negative_score_volume_loss(real: Scores, rendered: Scores) -> Scalar:
    """-mean D(rendered): the volume's side of the hinge and the Wasserstein loss."""
    return -rendered.mean()


Pair = Callable[[Scores, Scores], Scalar]
ADVERSARIAL_LOSSES: dict[Pairing, tuple[Pair, Pair]] = {
    "relativistic": (relativistic_discriminator_loss, relativistic_volume_loss),
    "non_saturating": (non_saturating_discriminator_loss, non_saturating_volume_loss),
    "hinge": (hinge_discriminator_loss, negative_score_volume_loss),
    "wasserstein": (wasserstein_discriminator_loss, negative_score_volume_loss),
}


def gradient_penalties(score: Scores, images: Float[Tensor, "B C H W"]) -> Scores:
    """Squared gradient of the score at each image, halved.

        R = mean_b r_b,   r_b = 1/2 |d score_b / d image_b|^2

    R is called R1 at real images and R2 at rendered ones.

    Args:
        score: the discriminator's, one an image, computed from `images`.
        images: leaves that require a gradient; detached from the volume, so that no second derivative
            ever runs through the renderer.

    Raises:
        RuntimeError: from autograd, when `score` was not computed from `images`.

    Gradients:
        To the discriminator's parameters (a second derivative).

    Source:
        Mescheder, Geiger, Nowozin, "Which training methods for GANs do actually converge?" (2018), eq. 9.
    """
    (gradient,) = torch.autograd.grad(score.sum(), images, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3))
