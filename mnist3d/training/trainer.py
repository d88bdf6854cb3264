"""The training loop: draw poses, render, teach the discriminator, move the volume.

What it is: one loop that can be read aloud, with everything an exact resume needs as its state.
What it is not: it prints nothing and writes nothing; progress, pictures, files and the viewer are hooks.
Longer than files should be here, because the state that an exact resume needs stands beside the loop that changes it.
"""

import copy
import math
import time
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..data.augment import random_shift, tilted
from ..data.images import ImageSet
from ..geometry.rotations import PoseOptions, sphere_weights, training_rotations
from ..rendering.renderer import AbsorptionRenderer
from ..volumes.base import Volume
from .discriminator import Discriminator, DiscriminatorOptions
from .gan_losses import ADVERSARIAL_LOSSES, LossOptions, gradient_penalty
from .objectives.class_balance import ClassPrices
from .objectives.diversity import class_diversity_loss
from .objectives.group_weights import GroupWeights
from .objectives.nearest_image import NearestPull
from .objectives.targets import Targets
from .options import TrainerOptions as TrainerOptions
from .report import StepReport as StepReport
from .report import variety as variety

# The relativistic pairing is a moving game: no momentum, and a long memory of the second moment (R3GAN).
ADAM_BETAS = (0.0, 0.99)
POSES_PER_VIEW = 4  # drawn beside targets, so that enough of them look where no target decides
# What no rewind turns back.
GOES_ON = ("generator", "torch_rng", "cuda_rng", "steps_done", "seconds_done")


def _adam(parameters: Iterable[Any], rate: float) -> torch.optim.Adam:
    # fused: one pass over the weights instead of some ten, the same up to rounding.
    return torch.optim.Adam(parameters, lr=rate, betas=ADAM_BETAS, fused=True)


@runtime_checkable
class Hook(Protocol):
    """Something that watches a run."""

    def after_step(self, trainer: "Trainer", report: StepReport) -> None:
        """Called after every step."""

    def finish(self, trainer: "Trainer") -> None:
        """Called once when the run ends, however it ends."""


class Trainer:
    """A volume, its critic, their optimisers and the sources of randomness.

    Args:
        volume: what is sculpted, on its device.
        renderer: makes its pictures.
        images: real pictures, of the renderer's size.
        options: length and pace.
        losses: what pulls.
        poses: where the views are drawn from.
        targets: what certain directions must show, or None.
        discriminator: its widths.
        seed: of poses, real pictures and shifts. The weights' start comes from torch's own generator.
    """

    def __init__(
        self,
        volume: Volume,
        renderer: AbsorptionRenderer,
        images: ImageSet,
        *,
        options: TrainerOptions | None = None,
        losses: LossOptions | None = None,
        poses: PoseOptions | None = None,
        targets: Targets | None = None,
        discriminator: DiscriminatorOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.options = options or TrainerOptions()
        self.losses = losses or LossOptions()
        self.poses = poses or PoseOptions()
        self.targets = targets
        if targets is None and self.losses.adversarial_weight == 0.0:
            raise ValueError(
                "losses.adversarial_weight=0: without targets nothing would pull on the volume; "
                "add targets.views or targets.rings"
            )
        priced = self.losses.diversity_everywhere > 0 and self.losses.adversarial_weight > 0
        self.priced = priced and images.labels is not None
        if self.priced and self.poses.leaves_directions_out:
            raise ValueError(
                f"losses.diversity_everywhere={self.losses.diversity_everywhere:g}: with poses.sphere_share=0 no view "
                "comes from everywhere; raise that share, or set losses.diversity_everywhere=0"
            )
        self.device = next(volume.parameters()).device
        if targets is not None:
            targets.pictures = targets.pictures.to(self.device)
        self.volume, self.renderer = volume, renderer
        self.averaged = copy.deepcopy(volume).requires_grad_(False)
        self.images = images.images.to(self.device)
        self.labels = None if images.labels is None else images.labels.to(self.device)
        self.class_names = images.class_names
        classes = 0 if images.labels is None else len(images.class_names)
        self.discriminator = Discriminator(self.images.shape[-1], classes, discriminator).to(self.device)
        if self.device.type == "cpu":  # the order in which its convolutions compute: 6 % of a step
            self.discriminator.to(memory_format=torch.channels_last)
        self.volume_optimiser = self._volume_adam()
        self.discriminator_optimiser = _adam(self.discriminator.parameters(), self.options.discriminator_rate)
        self.generator = torch.Generator().manual_seed(seed)
        pulled = self.losses.nearest > 0 and self.losses.adversarial_weight > 0
        candidates = slice(None if pulled else 1)  # what is never asked need not be kept
        self.nearest_pull = NearestPull(
            self.images[candidates],
            None if self.labels is None else self.labels[candidates],
            classes,
            focus=self.losses.nearest_focus,
            quantile=self.losses.nearest_quantile,
            registration=self.losses.nearest_registration,
            tilt=self.options.max_tilt,
        ).to(self.device)
        self.class_prices = ClassPrices(max(1, classes)).to(self.device)
        asked = (1, 0.0) if targets is None else (len(targets.azimuth), targets.options.focus)
        self.target_weights = GroupWeights(*asked).to(self.device)
        self.steps_done = 0
        self.grown_at = 0  # step of the last growth in this session: the pace is another since
        self.seconds_done = 0.0
        self.last_penalty = 0.0
        self.rate_scale = 1.0
        self.stop_requested = False
        self._resumed_at = time.monotonic()

    def run(self, hooks: Iterable[Hook] = ()) -> None:
        """Step until the run is complete or a stop is requested; then let every hook finish."""
        hooks = list(hooks)
        self.stop_requested = False
        self._resumed_at = time.monotonic()
        stop_at = None if self.options.stop_after is None else self.steps_done + self.options.stop_after
        try:
            while not self.stop_requested and self.share < 1.0 and self.seconds < self.options.seconds_limit:
                report = self.step()
                for hook in hooks:
                    hook.after_step(self, report)
                if self.steps_done == stop_at:
                    break
        finally:
            self.seconds_done, self._resumed_at = self.seconds, time.monotonic()
            for hook in hooks:
                hook.finish(self)

    def step(self) -> StepReport:
        """One step of both players on fresh poses and fresh real pictures."""
        share = self.share
        self._grow(share)
        for optimiser, rate in (
            (self.volume_optimiser, self.options.volume_rate),
            (self.discriminator_optimiser, self.options.discriminator_rate),
        ):
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("rate", 1.0) * self.options.rate_factor(share) * self.rate_scale
        if self.losses.adversarial_weight == 0.0:
            return self._step_on_targets_alone()
        reals, labels = self._draw_reals()
        rotations = self._draw_rotations().to(self.device)
        views = self.renderer(self.volume, rotations, generator=self.generator)
        discriminator_loss, classification_loss, gaps = self._teach_discriminator(reals, labels, views.detach())
        moved = self._move_volume(reals, views, rotations, share)
        volume_loss, diversity_loss, nearest_loss, target_loss, logits = moved
        self.steps_done += 1
        self._average()
        counts = torch.bincount(logits.argmax(dim=1), minlength=logits.shape[1]) if logits.shape[1] else logits[0]
        return StepReport(
            step=self.steps_done,
            share=self.share,
            discriminator_loss=discriminator_loss,
            classification_loss=classification_loss,
            penalty=self.last_penalty,
            volume_loss=volume_loss,
            diversity_loss=diversity_loss,
            nearest_loss=nearest_loss,
            class_shares=(counts / max(len(logits), 1)).tolist(),
            mean_brightness=views.detach().mean().item(),
            target_loss=target_loss,
            view_variety=variety(views.detach()).item(),
            score_gap=gaps.mean().item(),
            score_spread=gaps.square().mean().sqrt().item(),
            shares_everywhere=F.normalize(self.class_prices.shares, p=1.0, dim=0).tolist() if self.priced else [],
        )

    def _grow(self, share: float) -> None:
        """Let the volume refine itself; the average grows alike, out of its own values."""
        if self.volume.grow(self.steps_done, share):
            self.averaged.grow(self.steps_done, share)
            self.grown_at = self.steps_done
            # Not carried over: a finer voxel's gradient is an eighth of a coarser one's, so the second moments
            # would hold the first hundred steps back, and what had no gradient so far would leap; the first
            # moments have no memory (ADAM_BETAS).
            self.volume_optimiser = self._volume_adam()

    def _volume_adam(self) -> torch.optim.Adam:
        return _adam(self.volume.parameter_groups(), self.options.volume_rate)

    def _step_on_targets_alone(self) -> StepReport:
        assert self.targets is not None
        target, brightness = self._target_loss(self.targets)
        self._descend(self.targets.options.weight * target)
        self.steps_done += 1
        self._average()
        return StepReport(
            step=self.steps_done,
            share=self.share,
            discriminator_loss=0.0,
            classification_loss=0.0,
            penalty=0.0,
            volume_loss=0.0,
            diversity_loss=0.0,
            nearest_loss=0.0,
            class_shares=[],
            mean_brightness=brightness,
            target_loss=target.item(),
        )

    @property
    def seconds(self) -> float:
        """Training time so far, earlier sessions of a resumed run included."""
        return self.seconds_done + time.monotonic() - self._resumed_at

    def leave_out(self, seconds: float) -> None:
        """Time that has passed without training, such as a pause: it does not count."""
        self._resumed_at += seconds

    @property
    def share(self) -> float:
        """Of the run that is done, [0, 1]: by steps where `max_steps` is set, else by minutes."""
        if self.options.max_steps is not None:
            return min(self.steps_done / self.options.max_steps, 1.0)
        return min(self.seconds / self.options.seconds_limit, 1.0)

    def _draw_rotations(self) -> Float[Tensor, "B 3 3"]:
        """Poses of the run's law, as far as possible where no target decides."""
        if self.targets is None:
            return training_rotations(self.options.views, self.generator, self.poses)
        rotations = training_rotations(POSES_PER_VIEW * self.options.views, self.generator, self.poses)
        free_first = self.targets.near(rotations).int().argsort(stable=True)
        return rotations[free_first[: self.options.views]]

    def _target_loss(self, targets: Targets) -> tuple[Float[Tensor, ""], float]:
        rotations, pictures, target = targets.draw(self.generator)
        views = self.renderer(self.volume, rotations.to(self.device), generator=self.generator)
        difference = (views - pictures).abs().mean(dim=(1, 2, 3))
        weight = self.target_weights(target, difference.detach(), pictures)
        return (weight * difference).mean(), views.detach().mean().item()

    def _draw_reals(self) -> tuple[Float[Tensor, "B 1 H W"], Int[Tensor, " B"] | None]:
        index = torch.randint(len(self.images), (self.options.views,), generator=self.generator).to(self.device)
        pictures = self.images[index]
        if self.options.max_tilt > 0:
            pictures = tilted(pictures, self.options.max_tilt, self.generator)
        return pictures, None if self.labels is None else self.labels[index]

    def _teach_discriminator(
        self, reals: Float[Tensor, "B 1 H W"], labels: Int[Tensor, " B"] | None, views: Float[Tensor, "B 1 H W"]
    ) -> tuple[float, float, Float[Tensor, " B"]]:
        options = self.losses
        with_penalty = options.penalty > 0 and self.steps_done % options.penalty_every == 0
        # One pass for both: in the discriminator no picture sees another.
        shifted = [random_shift(pictures, self.options.max_shift, self.generator) for pictures in (reals, views)]
        pictures = torch.cat(shifted).requires_grad_(with_penalty)
        scores, logits = self.discriminator(pictures)
        real_score, rendered_score = scores.chunk(2)
        adversarial = ADVERSARIAL_LOSSES[options.adversarial][0](real_score, rendered_score)
        loss, classification = adversarial, adversarial.new_zeros(())
        if labels is not None:
            classification = F.cross_entropy(logits[: len(reals)], labels)
            loss = loss + options.classification * classification
        if with_penalty:
            penalty = 2.0 * gradient_penalty(scores, pictures)  # R1 + R2, of which each is the mean over its half
            loss = loss + options.penalty * options.penalty_every * penalty
            self.last_penalty = penalty.item()
        self.discriminator_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.discriminator_optimiser.step()
        return adversarial.item(), classification.item(), (real_score - rendered_score).detach()

    def _move_volume(
        self,
        reals: Float[Tensor, "B 1 H W"],
        views: Float[Tensor, "B 1 H W"],
        rotations: Float[Tensor, "B 3 3"],
        share: float,
    ) -> tuple[float, float, float, float, Float[Tensor, "B K"]]:
        options = self.losses
        self.discriminator.requires_grad_(False)
        with torch.no_grad():
            real_score, _ = self.discriminator(random_shift(reals, self.options.max_shift, self.generator))
        score, logits = self.discriminator(random_shift(views, self.options.max_shift, self.generator))
        self.discriminator.requires_grad_(True)
        adversarial = ADVERSARIAL_LOSSES[options.adversarial][1](real_score, score)
        loss, diversity, nearest = options.adversarial_weight * adversarial, score.new_zeros(()), score.new_zeros(())
        if logits.shape[1] and options.diversity > 0:
            diversity = class_diversity_loss(logits)
            loss = loss + options.diversity * diversity
        if self.priced:
            weights = sphere_weights(rotations, self.poses)
            loss = loss + options.diversity_everywhere * self.class_prices(logits, weights)
        if (weight := options.nearest_weight(share)) > 0:
            nearest = self.nearest_pull(views, logits)
            loss = loss + weight * nearest
        target = score.new_zeros(())
        if self.targets is not None:
            target, _ = self._target_loss(self.targets)
            loss = loss + self.targets.options.weight * target
        self._descend(loss)
        return adversarial.item(), diversity.item(), nearest.item(), target.item(), logits.detach()

    def _descend(self, loss: Float[Tensor, ""]) -> None:
        self.volume_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.volume_optimiser.step()

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential moving average of the weights, shorter at first so that the noisy start is forgotten."""
        decay = min(self.options.average_decay, self.steps_done / (self.steps_done + 10.0))
        for mean, value in zip(self.averaged.parameters(), self.volume.parameters(), strict=True):
            # A weight of -inf (an empty voxel of a volume from elsewhere) stays what it is instead of inf - inf.
            mean.copy_(torch.where(mean == value, value, mean.lerp(value, 1.0 - decay)))
        for mean, value in zip(self.averaged.buffers(), self.volume.buffers(), strict=True):
            mean.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs: tensors and plain values only, so `weights_only=True` loads it."""
        return {
            "volume": self.volume.state_dict(),
            "averaged": self.averaged.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "nearest_pull": self.nearest_pull.state_dict(),
            "target_weights": self.target_weights.state_dict(),
            "class_prices": self.class_prices.state_dict(),
            "volume_optimiser": self.volume_optimiser.state_dict(),
            "discriminator_optimiser": self.discriminator_optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "steps_done": self.steps_done,
            "seconds_done": self.seconds,
            "last_penalty": self.last_penalty,
            "rate_scale": self.rate_scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken.

        Raises:
            KeyError, RuntimeError, ValueError: the state is of another version or of other options.
        """
        for name in ("volume", "averaged", "discriminator", "nearest_pull", "target_weights"):
            getattr(self, name).load_state_dict(state[name])
        # checkpoints from before there were prices begin with even shares
        even = ClassPrices(len(self.class_prices.shares)).state_dict()
        self.class_prices.load_state_dict(state.get("class_prices", even))
        self.volume_optimiser = self._volume_adam()  # the state may be of another resolution
        for name in ("volume_optimiser", "discriminator_optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"] and self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self.steps_done = int(state["steps_done"])
        self.seconds_done, self._resumed_at = float(state["seconds_done"]), time.monotonic()
        self.last_penalty = float(state["last_penalty"])
        self.rate_scale = float(state["rate_scale"])
        if not math.isfinite(self.seconds_done):
            raise ValueError("seconds_done is not a number")

    def rewind(self, state: dict[str, Any], rate_scale: float) -> None:
        """Put both players back to an earlier state and slow them down; clocks and randomness go on.

        The run so ends when it should, and does not draw again what it failed on.

        Args:
            state: of `state_dict`, taken in this run; it is copied, so it can serve again.
            rate_scale: factor on both learning rates from now on, on top of earlier ones, in (0, 1].
        """
        now = self.state_dict()
        self.load_state_dict({**copy.deepcopy(state), **{name: now[name] for name in GOES_ON}})
        self.rate_scale = now["rate_scale"] * rate_scale
