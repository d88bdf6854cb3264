"""The adversarial loss: a discriminator learns to tell views from real images, the volume learns to fool it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ...data.augment import random_starts, shifted
from ...geometry.on_device import made_once, sent
from ...geometry.parts import in_parts
from ..checked_state import load_adam
from ..discriminator import Discriminator
from ..gan_losses import ADVERSARIAL_LOSSES, Pairing, gradient_penalties
from ..options import ADAM_BETAS
from ..report import variety
from .base import Batch, Objective, check_weight

PENALTY_EVERY = 4  # steps; each penalty then counts so many times (lazy regularisation, Karras et al. 2020)
MAX_SHIFT = 2  # pixels by which an image is moved at random before the discriminator sees it


@dataclass
class AdversarialOptions:
    """The adversarial loss of volume and discriminator.

    Args:
        pairing: Form of the GAN loss.
        weight: Weight of the adversarial loss of the volume, >= 0. With 0 there is no discriminator, and diversity,
            class_balance and nearest_image are off too, so only targets act.
        penalty: Weight (gamma) of the discriminator's gradient penalties R1 and R2, >= 0.
    """

    pairing: Pairing = "relativistic"
    weight: float = 1.0
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.pairing not in get_args(Pairing):
            raise ValueError(f"adversarial.pairing={self.pairing!r}: must be one of {', '.join(get_args(Pairing))}")
        check_weight("adversarial.weight", self.weight)
        check_weight("adversarial.penalty", self.penalty)


class Adversarial(Objective):
    """One of the pairs of `ADVERSARIAL_LOSSES`, R1 and R2 penalties, and a class head's cross-entropy.

    `prepare` teaches the discriminator on real images and on views that carry no gradient, then has it score the views
    that do; what its class head reads in them is left in `batch.class_logits` for other objectives.

    Args:
        discriminator: on the volume's device.
        rate: its learning rate, > 0.
        options: pairing, weight, penalty.

    Its state is the discriminator, its optimiser and the last penalty.
    """

    name = "adversarial"
    in_progress_line = {"discriminator_loss": "D", "volume_loss": "V"}  # noqa: RUF012 - never changed

    def __init__(self, discriminator: Discriminator, rate: float, options: AdversarialOptions | None = None) -> None:
        super().__init__()
        self.options = options or AdversarialOptions()
        self.discriminator, self.rate = discriminator, rate
        self.optimiser = _adam(discriminator.parameters(), rate)
        self._last_penalty: Tensor | float = 0.0
        self._figures: dict[str, Any] = {}
        self._scores: tuple[Tensor, Tensor] | None = None

    def prepare(self, batch: Batch) -> None:
        """Teach the discriminator, then score the views."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * batch.rate
        images, views = batch.images, batch.views
        starts = sent(random_starts(4, len(views), views.shape[-1], MAX_SHIFT, batch.generator), views)
        # In the discriminator no image sees another: each process takes its own through, and the scores of all.
        count, own = len(views), batch.processes.own(len(views))
        images, views, starts = images[own], batch.processes.mine(views), starts[:, own]
        # One pass for both.
        both = shifted(torch.cat([images, views.detach()]), starts[:2].flatten(), MAX_SHIFT)
        self._teach(batch, both)
        with torch.no_grad():
            real, _ = self._judged(batch, shifted(images, starts[2], MAX_SHIFT), batch.at_once, learns=False)
        rendered, logits = self._judged(batch, shifted(views, starts[3], MAX_SHIFT), batch.at_once, learns=False)
        real, rendered, batch.class_logits = batch.processes.whole(count, real, rendered, logits)
        self._scores = real, rendered

    def loss(self, batch: Batch) -> Float[Tensor, ""]:
        """The volume's side of the pairing, weighted."""
        assert self._scores is not None
        assert batch.class_logits is not None
        loss = ADVERSARIAL_LOSSES[self.options.pairing][1](*self._scores)
        self._scores = None
        logits = batch.class_logits.detach()
        kinds = logits.shape[1]
        read = logits.argmax(dim=1, keepdim=True) == _numbers(kinds, logits.device) if kinds else logits
        self._figures |= {
            "volume_loss": loss.detach(),
            "class_shares": read.sum(dim=0) / max(len(logits), 1),
            "view_variety": variety(batch.views.detach()),
        }
        return self.options.weight * loss

    def metrics(self) -> dict[str, Any]:
        """Both players' losses, the penalty, the scores' gap and spread, the classes that are read in the views.

        score_gap and score_spread: mean and root mean square of D(real) - D(rendered), paired as in the loss; a spread
        of 0 is a discriminator that tells nothing apart.
        """
        return dict(self._figures)

    def get_extra_state(self) -> dict[str, Any]:
        """What no buffer holds: the optimiser, and the penalty that is reported until the next."""
        return {"optimiser": self.optimiser.state_dict(), "last_penalty": float(self._last_penalty)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_extra_state`.

        Raises:
            ValueError: it is of another discriminator, or damaged.
        """
        if not isinstance(state, dict) or state.keys() != {"optimiser", "last_penalty"}:
            raise ValueError(f"{self.name}: its state must hold optimiser and last_penalty")
        load_adam(self.optimiser, state["optimiser"], f"{self.name}.optimiser")
        penalty = state["last_penalty"]
        if isinstance(penalty, bool) or not isinstance(penalty, int | float) or not math.isfinite(penalty):
            raise ValueError(f"{self.name}.last_penalty must be a finite number")
        self._last_penalty = float(penalty)

    def _teach(self, batch: Batch, inputs: Float[Tensor, "B2 1 H W"]) -> None:
        """One step of the discriminator's.

        Args:
            batch: of the step.
            inputs: real images, then as many views; those of this process.
        """
        options, processes, count = self.options, batch.processes, batch.count
        with_penalty = options.penalty > 0 and batch.step % PENALTY_EVERY == 0
        at_once = None if batch.at_once is None else 2 * batch.at_once  # a view and an image
        whole = at_once is None or at_once >= len(inputs)
        inputs.requires_grad_(with_penalty and whole)
        scores, logits = self._judged(batch, inputs, at_once)
        real, rendered = scores.chunk(2)
        real, rendered, logits = processes.whole(count, real, rendered, logits[: len(real)])
        adversarial = ADVERSARIAL_LOSSES[options.pairing][0](real, rendered)
        loss, classification = adversarial, 0.0
        if batch.labels is not None:
            cross_entropy = F.cross_entropy(logits, batch.labels)
            loss, classification = loss + cross_entropy, cross_entropy.detach()
        self.optimiser.zero_grad(set_to_none=True)
        if with_penalty:
            each = gradient_penalties(scores, inputs) if whole else self._penalised(batch, inputs.split(at_once or 1))
            each = processes.whole(count, *each.chunk(2))
            penalty = 2.0 * torch.cat(each).mean()  # R1 + R2, of which each is the mean over its half
            if whole:
                loss = loss + options.penalty * PENALTY_EVERY * penalty
            self._last_penalty = penalty.detach()
        loss.backward()
        processes.average_gradients(self.discriminator.parameters())
        self.optimiser.step()
        gaps = (real - rendered).detach()
        self._figures = {
            "discriminator_loss": adversarial.detach(),
            "classification_loss": classification,
            "penalty": self._last_penalty,
            "score_gap": gaps.mean(),
            "score_spread": torch.linalg.vector_norm(gaps) / math.sqrt(len(gaps)),
        }

    def _judged(
        self, batch: Batch, images: Float[Tensor, "P 1 H W"], at_once: int | None, learns: bool = True
    ) -> tuple[Float[Tensor, " P"], Float[Tensor, "P K"]]:
        """Scores and class logits, with gradients to the images, and to the weights if these learn."""

        def judge(part: Tensor) -> tuple[Tensor, ...]:
            if learns:
                return self.discriminator(part, batch.precision)
            self.discriminator.requires_grad_(False)  # here, as a part is computed again long after
            try:
                return self.discriminator(part, batch.precision)
            finally:
                self.discriminator.requires_grad_(True)

        scores, logits = in_parts(judge, at_once, images)
        return scores, logits

    def _penalised(self, batch: Batch, parts: Iterable[Float[Tensor, "_ 1 H W"]]) -> Float[Tensor, " P"]:
        """The penalty of each image, part by part; the gradient of the whole is added to that of the weights.

        Second derivatives keep all of the first ones' way, so these parts cannot wait for one backward pass.
        """
        weight, found = self.options.penalty * PENALTY_EVERY / batch.count, []
        for part in parts:
            images = part.detach().requires_grad_(True)
            each = gradient_penalties(self.discriminator(images, batch.precision)[0], images)
            (weight * batch.processes.count * each.sum()).backward()
            found.append(each.detach())
        return torch.cat(found)


@made_once
def _numbers(count: int, device: torch.device) -> Int[Tensor, " K"]:
    return torch.arange(count, device=device)


def _adam(parameters: Iterable[Tensor], rate: float) -> torch.optim.Adam:
    # fused: one pass over the weights instead of some ten, the same up to rounding.
    return torch.optim.Adam(parameters, lr=rate, betas=ADAM_BETAS, fused=True)
