"""A first, coarse volume of images whose directions nobody knows: the project's own way, by a discriminator."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..data.images import ImageSet
from ..geometry.rotations import PoseOptions
from ..rendering.renderer import AbsorptionRenderer
from ..training.discriminator import DiscriminatorOptions
from ..training.objectives.adversarial import AdversarialOptions
from ..training.objectives.base import Batch, Objective
from ..training.objectives.build import build_objectives
from ..training.objectives.nearest_image import NearestImageOptions
from ..training.options import TrainerOptions
from ..training.report import StepReport
from ..training.trainer import Trainer
from ..volumes.voxel_grid import VoxelGrid
from .ab_initio import SIZE
from .fourier import resized, soft_ball
from .known_views import absorb_nothing
from .noise import beyond_nyquist, share_of_noise

# Found by trials of the GAN alone: research/log.md.
STEPS, VOLUME_RATE, DISCRIMINATOR_RATE, PENALTY = 4000, 0.03, 0.001, 0.03
DEPTH = 1.0  # optical depth that the thickest rays are brought to, where views are neither black nor white


class Noise(Objective):
    """Makes views as noisy as the images are, before another objective sees them; it has no loss of its own.

        view <- 1 - (1 - view) exp(-n),   n ~ N(0, level^2): noise n on the optical depth of each pixel

    A discriminator that is shown views without noise knows them by that, and teaches the volume to be noise.

    Args:
        level: standard deviation of the optical depth of each pixel, >= 0.
    """

    name = "noise"

    def __init__(self, level: Float[Tensor, "N N"]) -> None:
        super().__init__()
        self.level = level

    def prepare(self, batch: Batch) -> None:
        """Put noisy views in the place of the views."""
        if bool(self.level.any()):
            noise = torch.randn(batch.views.shape, generator=batch.generator) * self.level
            batch.views = 1.0 - (1.0 - batch.views) * torch.exp(-noise.to(batch.views))

    def loss(self, batch: Batch) -> None:
        """None."""


class _Told:
    """Tells how far the training is."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self.tell = tell

    def after_step(self, trainer: Trainer, report: StepReport) -> None:
        self.tell(trainer.progress)

    def finish(self, trainer: Trainer) -> None:
        pass


def coarse_images(lines: Float[Tensor, "B N N"]) -> Float[Tensor, "B 16 16"]:
    """Images of 16 pixels, each the mean over its area, so that white noise stays white.

    Leaving out what is finer, as `resized` does, would leave a pattern that the discriminator tells from views.
    """
    if lines.shape[-1] == SIZE:
        return lines
    return F.avg_pool2d(resized(lines, 2 * SIZE, 2), 2)


def start_by_gan(
    lines: Float[Tensor, "B N N"],
    seed: int,
    noise: float = 0.0,
    masked: bool = False,
    tell: Callable[[float], None] = lambda share: None,
) -> Float[Tensor, "K K K"]:
    """A volume of 16^3 voxels whose views, from all directions alike, a discriminator cannot tell from the images.

    Args:
        lines: line integrals, dimensionless.
        seed: of the weights, and of all that is drawn; torch's global generator stays as it was.
        noise: standard deviation of a pixel, which views are given too.
        masked: whether the images hold noise in a part of their pixels only: then only there.
        tell: is handed the share that is done.

    Returns:
        Attenuation per world unit, of the averaged volume.

    Source:
        The paper behind this way of finding poses, without poses: Gupta, McCann, Donati, Unser, "CryoGAN: a new
        reconstruction paradigm for single-particle cryo-EM via deep adversarial learning" (2021).
    """
    coarse = coarse_images(lines)
    depths = coarse.flatten()[:: max(1, coarse.numel() // 10**6)]
    factor = DEPTH / max(float(depths.quantile(0.999)), 1e-12)
    images = -torch.expm1(-coarse * factor)[:, None]
    level = coarse.new_full((SIZE, SIZE), factor * noise * SIZE / lines.shape[-1])
    if masked:
        kept = share_of_noise(beyond_nyquist(lines))
        level = level * F.interpolate(kept[None, None], (SIZE, SIZE), mode="area")[0, 0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        volume = VoxelGrid(SIZE)
        absorb_nothing(volume)
        image_set = ImageSet(images, None, [])
        objectives = build_objectives(
            image_set,
            adversarial=AdversarialOptions(penalty=PENALTY),
            discriminator=DiscriminatorOptions(rate=DISCRIMINATOR_RATE),
            nearest_image=NearestImageOptions(weight=0.0),
        )
        trainer = Trainer(
            volume,
            AbsorptionRenderer(SIZE),
            image_set,
            [Noise(level), *objectives],
            options=TrainerOptions(max_steps=STEPS, volume_rate=VOLUME_RATE, max_tilt=0.0),
            poses=PoseOptions("so3"),
            seed=seed,
        )
        trainer.run([_Told(tell)])
    attenuation = trainer.averaged.dense()
    assert attenuation is not None
    return attenuation[0].detach() / factor * soft_ball(SIZE)
