"""GAN losses and penalties as pure functions of scores, logits and pictures.

What it is: tensors in, a scalar out. What it is not: no networks, no schedules, no optimisers.
A pairing of real and rendered scores is a pair of functions in the table `ADVERSARIAL_LOSSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

AdversarialName = Literal["relativistic", "non_saturating", "hinge", "wasserstein"]
Scores = Float[Tensor, " B"]
Scalar = Float[Tensor, ""]


@dataclass
class LossOptions:
    """What pulls on the volume and on the discriminator.

    Args:
        adversarial: How real and rendered scores are paired: relativistic, non_saturating, hinge or wasserstein.
        adversarial_weight: Weight of the adversarial term on the volume, >= 0; 0 leaves the discriminator out
            altogether, and with it diversity, diversity_everywhere and nearest: then targets alone pull, which is fast.
        classification: Weight of the class head's cross-entropy on labelled real pictures, >= 0.
        penalty: Weight (gamma) of the gradient penalties R1 and R2 on the discriminator, >= 0.
        penalty_every: Steps between penalties, each then weighted by this number, at least 1.
        diversity: Weight of the class diversity term on the volume, >= 0; needs labels.
        diversity_everywhere: Weight of prices on the classes that have more than their part of all directions, as
            sides and rear are seldom drawn, >= 0; needs labels, and views from everywhere (poses.sphere_share).
        nearest: Weight, at the end of the run, of the mean difference between a view and the nearest
            real picture of the class that the discriminator reads in it, >= 0; 0 leaves a pure GAN.
        nearest_quantile: Of that difference, in (0, 1): at .5 it is the absolute one; above, missing light counts more
            than stray light, so that strokes keep their width.
        nearest_registration: How far the nearest real picture is first moved to meet the view, 0 to below .25: the
            largest shift in half-widths of a picture, and half the largest entry of a linear map; 0 leaves it.
        nearest_from: Share of the run at which that pull begins to grow from 0, linearly, [0, 1).
        nearest_focus: Power by which that pull leans on the classes whose views are furthest from real pictures, >= 0;
            0 pulls at all alike.
    """

    adversarial: AdversarialName = "relativistic"
    adversarial_weight: float = 1.0
    classification: float = 1.0
    penalty: float = 1.0
    penalty_every: int = 4
    diversity: float = 0.3
    diversity_everywhere: float = 0.0
    nearest: float = 24.0
    nearest_quantile: float = 0.58
    nearest_registration: float = 0.2
    nearest_from: float = 0.3
    nearest_focus: float = 6.0

    def __post_init__(self) -> None:
        if self.adversarial not in get_args(AdversarialName):
            raise ValueError(
                f"losses.adversarial={self.adversarial!r}: allowed are {', '.join(get_args(AdversarialName))}"
            )
        weights = ("adversarial_weight", "classification", "penalty", "diversity", "diversity_everywhere", "nearest")
        for name in (*weights, "nearest_focus"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"losses.{name}={getattr(self, name)}: allowed are numbers >= 0")
        if self.penalty_every < 1:
            raise ValueError(f"losses.penalty_every={self.penalty_every}: allowed are steps from 1")
        if not 0.0 < self.nearest_quantile < 1.0:
            raise ValueError(f"losses.nearest_quantile={self.nearest_quantile}: allowed are shares between 0 and 1")
        if not 0.0 <= self.nearest_registration < 0.25:
            raise ValueError(f"losses.nearest_registration={self.nearest_registration}: allowed are 0 to below .25")
        if not 0.0 <= self.nearest_from < 1.0:
            raise ValueError(f"losses.nearest_from={self.nearest_from}: allowed are shares from 0 to below 1")

    def nearest_weight(self, share: float) -> float:
        """Weight of the pull towards the nearest real pictures when a share of the run is done."""
        return self.nearest * max(0.0, share - self.nearest_from) / (1.0 - self.nearest_from)


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


Pairing = Callable[[Scores, Scores], Scalar]
ADVERSARIAL_LOSSES: dict[AdversarialName, tuple[Pairing, Pairing]] = {
    "relativistic": (relativistic_discriminator_loss, relativistic_volume_loss),
    "non_saturating": (non_saturating_discriminator_loss, non_saturating_volume_loss),
    "hinge": (hinge_discriminator_loss, negative_score_volume_loss),
    "wasserstein": (wasserstein_discriminator_loss, negative_score_volume_loss),
}


def gradient_penalty(score: Scores, pictures: Float[Tensor, "B C H W"]) -> Scalar:
    """Mean squared gradient of the score at the pictures, halved.

        R = 1/2 mean_b |d score_b / d picture_b|^2

    Called R1 at real pictures and R2 at rendered ones.

    Args:
        score: the discriminator's, one a picture, computed from `pictures`.
        pictures: leaves that require a gradient; detached from the volume, so that no second derivative
            ever runs through the renderer.

    Raises:
        RuntimeError: from autograd, when `score` was not computed from `pictures`.

    Gradients:
        To the discriminator's parameters (a second derivative).

    Source:
        Mescheder, Geiger, Nowozin, "Which training methods for GANs do actually converge?" (2018), eq. 9.
    """
    (gradient,) = torch.autograd.grad(score.sum(), pictures, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()
