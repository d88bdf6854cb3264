"""Which class a view is to become, by a vote of the views around it.

What it is: a memory of recent views' poses and class probabilities, and the vote. What it is not: no loss, no gradient.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

MEMORY = 3000  # views: some 75 steps, in which a class seen from a place seldom changes
RAREST = 0.01  # share below which a class gets no cheaper
TINY = 1e-6  # probabilities below are one: their logarithm must not decide


class ClassVote(nn.Module):
    """The class that a view's neighbourhood shows, with frequent classes made dearer.

        class_b = argmax_k  log(sum_j w_bj p_jk / sum_j w_bj) - balance * log(mean_j p_jk)
        w_bj    = exp((cos(angle between poses b and j) - 1) / width^2)

    over the last views j, those of this step among them, with their class probabilities p. For small angles the weight
    is a Gaussian of standard deviation `width`. A view alone among views of another class so goes with them: borders
    between classes grow straighter, and regions much smaller than `width` close, as in a majority-vote cellular
    automaton. The second term keeps the large ones from eating the rare.

    Args:
        num_classes: K, at least 1.
        width: radians, >= 0; 0 lets each view decide alone, and prices nothing.
        balance: >= 0; at 1 a class that is seen twice as often must be twice as probable.

    Its state (`state_dict`) is the memory.
    """

    rotations: Float[Tensor, "M 9"]
    probabilities: Float[Tensor, "M K"]
    seen: Int[Tensor, ""]

    def __init__(self, num_classes: int, width: float, balance: float) -> None:
        super().__init__()
        self.width, self.balance = width, balance
        size = MEMORY if width > 0 else 0
        self.register_buffer("rotations", torch.zeros(size, 9))
        self.register_buffer("probabilities", torch.zeros(size, num_classes))
        self.register_buffer("seen", torch.tensor(0))

    @torch.no_grad()
    def forward(self, rotations: Float[Tensor, "B 3 3"], logits: Float[Tensor, "B K"]) -> Int[Tensor, " B"]:
        """The class of each view, after the memory has taken them in.

        Args:
            rotations: of the views.
            logits: of the class head.

        Gradients:
            None.
        """
        if self.width == 0.0:
            return logits.argmax(dim=1)
        self._remember(rotations.flatten(1), logits.softmax(dim=1))
        known = min(int(self.seen), MEMORY)
        poses, probabilities = self.rotations[:known], self.probabilities[:known]
        # trace(R_b^T R_j) = 1 + 2 cos(angle)
        cosine = (rotations.flatten(1) @ poses.mT - 1.0) / 2.0
        weight = ((cosine - 1.0) / self.width**2).exp()
        around = (weight @ probabilities) / weight.sum(dim=1, keepdim=True)
        price = self.balance * probabilities.mean(dim=0).clamp_min(RAREST).log()
        return (around.clamp_min(TINY).log() - price).argmax(dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """A memory of another width or of a run without one is not taken over: it fills again within some steps."""
        own = dict(self.named_buffers())
        if any(
            state_dict.get(f"{prefix}{name}", torch.zeros(0, 0, 0)).shape != mine.shape for name, mine in own.items()
        ):
            for name, mine in own.items():
                state_dict[f"{prefix}{name}"] = torch.zeros_like(mine)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _remember(self, rotations: Float[Tensor, "B 9"], probabilities: Float[Tensor, "B K"]) -> None:
        """The newest views take the places of the oldest."""
        rotations, probabilities = rotations[-MEMORY:], probabilities[-MEMORY:]
        place = (self.seen + torch.arange(len(rotations), device=rotations.device)) % MEMORY
        self.rotations[place] = rotations
        self.probabilities[place] = probabilities
        self.seen += len(rotations)
