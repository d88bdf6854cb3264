"""What one step of training did, in numbers: for progress, files and the watchdog.

What it is: plain figures and the one that has to be computed. What it is not: a verdict (`diagnosis`).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass
class StepReport:
    """What a step did.

    Args:
        step: steps done, this one included.
        share: of the run that is done, [0, 1].
        discriminator_loss: adversarial part.
        classification_loss: cross-entropy of the class head on real pictures; 0 without labels.
        penalty: R1 + R2 of the last step that computed it.
        volume_loss: adversarial part.
        diversity_loss: class diversity term before its weight; 0 without labels.
        nearest_loss: mean difference (pinball) to the nearest real pictures before its weight; 0 while that is 0.
        class_shares: how often the class head sees each class in this step's views; empty without labels.
        mean_brightness: of the views.
        target_loss: mean absolute difference to the targets' pictures before its weight; 0 without targets.
        view_variety: how far the views differ from each other, see `variety`; None: not measured.
        score_gap: mean of D(real) - D(rendered), paired as in the discriminator's loss; None without that loss.
        score_spread: root mean square of the same difference; 0 for a discriminator that tells nothing apart.
        shares_everywhere: running share of each class over all directions, as the class head reads them; empty where
            no prices follow from it (losses.diversity_everywhere=0).
    """

    step: int
    share: float
    discriminator_loss: float
    classification_loss: float
    penalty: float
    volume_loss: float
    diversity_loss: float
    nearest_loss: float
    class_shares: list[float]
    mean_brightness: float
    target_loss: float = 0.0
    view_variety: float | None = None
    score_gap: float | None = None
    score_spread: float | None = None
    shares_everywhere: list[float] = field(default_factory=list)


@torch.no_grad()
def variety(pictures: Float[Tensor, "B 1 H W"]) -> Float[Tensor, ""]:
    """One minus the mean correlation between two of the pictures.

        1 - mean over pairs a != b of <z_a, z_b>,   z = (picture - its mean) / |picture - its mean|

    0 when all show the same, whatever their brightness and contrast; about 1 when they have nothing in common.

    Args:
        pictures: two or more; a picture without contrast has nothing in common with any.
    """
    flat = pictures.flatten(1)
    unit = F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)
    count = len(unit)
    return 1.0 - (unit.sum(dim=0).square().sum() - unit.square().sum()) / (count * (count - 1))
