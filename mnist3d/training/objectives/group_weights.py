"""Larger weights for the groups of views that are behind: classes, or targets.

A running figure for each group, and the weights that follow from it.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

# Of the running mean, for each view of the group: some 50 views.
MEMORY = 0.98
TINY = 1e-6  # groups that are all there must not be 0 / 0


class GroupWeights(nn.Module):
    """What a view weighs, by how far its group is from what it should look like.

    Groups differ in difficulty: a 1 is learned soon, an 8 or a 2 late, and all share the volume's voxels. A view weighs

        (r_k / mean_j r_j)^focus,   r_k = running mean over group k of  mean |view - x| / mean x

    which moves the balance to the groups that are behind, as group DRO does (Sagawa et al. 2020).

    Args:
        groups: K, at least 1.
        focus: the power, >= 0; 0 weighs all alike.

    Its state (`state_dict`) is the running means.
    """

    gaps: Float[Tensor, " K"]

    def __init__(self, groups: int, focus: float) -> None:
        super().__init__()
        self.focus = focus
        self.register_buffer("gaps", torch.ones(groups))

    @torch.no_grad()
    def forward(
        self, group: Int[Tensor, " B"], difference: Float[Tensor, " B"], wanted: Float[Tensor, "B 1 H W"]
    ) -> Float[Tensor, " B"]:
        """The views' weights, after their differences have moved the running means.

        Args:
            group: of each view, 0 to K - 1.
            difference: mean |view - wanted| of each.
            wanted: what each should look like, brightness in [0, 1].

        Gradients:
            None: weights are constants.
        """
        if self.focus == 0.0:
            return torch.ones_like(difference)
        relative = difference / wanted.mean(dim=(1, 2, 3)).clamp_min(1e-3)
        # Not bincount, which would wait for the device to say how many groups there are.
        count = torch.zeros_like(self.gaps).index_add_(0, group, torch.ones_like(relative))
        total = torch.zeros_like(self.gaps).index_add_(0, group, relative)
        self.gaps.lerp_(total / count.clamp_min(1.0), 1.0 - MEMORY**count)  # by nothing where there is no view
        behind = self.gaps.clamp_min(TINY)
        return ((behind / behind.mean()) ** self.focus)[group]
