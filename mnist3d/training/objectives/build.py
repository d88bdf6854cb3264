"""The list of objectives that a configuration asks for."""

import torch

from ...data.images import ImageSet
from ...geometry.rotations import PoseOptions
from ..discriminator import Discriminator, DiscriminatorOptions
from .adversarial import Adversarial, AdversarialOptions
from .base import Objective
from .class_balance import ClassBalance, ClassBalanceOptions
from .diversity import Diversity, DiversityOptions
from .nearest_image import NearestImage, NearestImageOptions
from .targets import Targets


def build_objectives(
    images: ImageSet,
    device: torch.device | str = "cpu",
    *,
    adversarial: AdversarialOptions | None = None,
    discriminator: DiscriminatorOptions | None = None,
    diversity: DiversityOptions | None = None,
    class_balance: ClassBalanceOptions | None = None,
    nearest_image: NearestImageOptions | None = None,
    targets: Targets | None = None,
    poses: PoseOptions | None = None,
    max_tilt: float = 0.0,
) -> list[Objective]:
    """Our own objectives, those whose weight is 0 left out.

    Without the adversarial one the discriminator is left out, and with it what reads its class head.

    Args:
        images: real images.
        device: where the volume lies.
        adversarial: options; default as for all that follow: the options' own defaults.
        discriminator: its widths and its rate; its weights come from torch's global generator.
        diversity: options.
        class_balance: options; needs labels.
        nearest_image: options.
        targets: an objective of its own, see `build_targets`, or None.
        poses: the distribution that the run draws its rotations from.
        max_tilt: degrees by which real images are turned, see `TrainerOptions`.

    Raises:
        ValueError: images too small for the discriminator, or a pose distribution that leaves directions out.
    """
    adversarial, diversity = adversarial or AdversarialOptions(), diversity or DiversityOptions()
    class_balance, nearest_image = class_balance or ClassBalanceOptions(), nearest_image or NearestImageOptions()
    discriminator = discriminator or DiscriminatorOptions()
    precision = images.images.dtype  # whatever torch's default and the volume's: views are compared with images
    found: list[Objective] = []
    if adversarial.weight > 0:
        classes = 0 if images.labels is None else len(images.class_names)
        network = Discriminator(images.images.shape[-1], classes, discriminator).to(device, precision)
        if torch.device(device).type == "cpu":  # the order in which its convolutions compute: 6 % of a step
            network.to(memory_format=torch.channels_last)
        found.append(Adversarial(network, discriminator.rate, adversarial))
        if classes and diversity.weight > 0:
            found.append(Diversity(diversity))
        if classes and class_balance.weight > 0:
            found.append(ClassBalance(classes, poses, class_balance).to(device, precision))
        if nearest_image.weight > 0:
            labels = None if images.labels is None else images.labels.to(device)
            found.append(NearestImage(images.images.to(device), labels, classes, nearest_image, tilt=max_tilt))
    return found if targets is None else [*found, targets.to(device)]
