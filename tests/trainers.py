"""A trainer with our own objectives, in one call; and what stands inside it."""

from typing import Any

from mnist3d.data.images import ImageSet
from mnist3d.geometry.rotations import PoseOptions
from mnist3d.rendering.renderer import AbsorptionRenderer
from mnist3d.training.discriminator import Discriminator
from mnist3d.training.objectives.adversarial import Adversarial
from mnist3d.training.objectives.build import build_objectives
from mnist3d.training.objectives.targets import Targets
from mnist3d.training.options import TrainerOptions
from mnist3d.training.trainer import Trainer
from mnist3d.volumes.base import Volume


def make_trainer(
    volume: Volume,
    renderer: AbsorptionRenderer,
    images: ImageSet,
    options: TrainerOptions | None = None,
    *,
    poses: PoseOptions | None = None,
    targets: Targets | None = None,
    seed: int = 0,
    **objectives: Any,
) -> Trainer:
    """As a run builds it; `objectives` are options by name, such as diversity=DiversityOptions(0)."""
    options = options or TrainerOptions()
    built = build_objectives(images, targets=targets, poses=poses, max_tilt=options.max_tilt, **objectives)
    return Trainer(volume, renderer, images, built, options=options, poses=poses, seed=seed)


def adversarial_of(trainer: Trainer) -> Adversarial:
    """The adversarial objective."""
    found = trainer.objectives["adversarial"]
    assert isinstance(found, Adversarial)
    return found


def discriminator_of(trainer: Trainer) -> Discriminator:
    """The discriminator that it teaches."""
    return adversarial_of(trainer).discriminator
