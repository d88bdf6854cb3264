"""What is asked of the classes of a step's views: each view sure of its own, and as many legible views of each.

What it is: the diversity term put together from its options. What it is not: it keeps nothing; what is known of the
classes belongs to the pull, the formulas to the losses.
"""

from jaxtyping import Float
from torch import Tensor

from .losses import LossOptions, batch_class_divergence, class_diversity_loss
from .nearest_pull import NearestPull
from .poses import PoseOptions, sphere_weights

MEASURE_EVERY = 4  # steps between measurements of the classes while nothing pulls yet


class Diversity:
    """The diversity term of a run.

        class_diversity_loss(logits, aim) + 2 everywhere batch_class_divergence(logits, aim, sphere_weights)

    Args:
        losses: diversity_focus, diversity_everywhere and what decides whether the classes are measured.
        poses: the law of the training views.
        pull: knows how far each class is behind.
        beside_targets: the views then follow another law, and are asked for evenness as they are drawn only.
    """

    def __init__(self, losses: LossOptions, poses: PoseOptions, pull: NearestPull, *, beside_targets: bool) -> None:
        self.losses, self.poses, self.pull, self.beside_targets = losses, poses, pull, beside_targets

    def __call__(
        self,
        views: Float[Tensor, "B 1 H W"],
        logits: Float[Tensor, "B K"],
        rotations: Float[Tensor, "B 3 3"],
        *,
        step: int,
        pulled: bool,
    ) -> Float[Tensor, ""]:
        """The term before its weight; moves the pull's running means while nothing is pulled yet.

        Args:
            views: brightness in [0, 1].
            logits: of the class head on these views.
            rotations: of these views.
            step: steps done.
            pulled: whether the pull measures the classes itself in this step.

        Gradients:
            To the logits.
        """
        aim = None
        if self.losses.diversity_focus > 0 and self.losses.nearest > 0:
            if not pulled and step % MEASURE_EVERY == 0:
                self.pull.measure(views, logits)
            aim = self.pull.class_aim(self.losses.diversity_focus)
        loss = class_diversity_loss(logits, aim)
        weights = None if self.beside_targets else sphere_weights(rotations, self.poses)
        if weights is None or self.losses.diversity_everywhere == 0.0:
            return loss
        return loss + 2.0 * self.losses.diversity_everywhere * batch_class_divergence(logits, aim, weights)
