"""How the two classifiers are trained: once, on images that the sculpture never sees, the same for the same images.

Images and classes in, networks out; it knows no cache and no process.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from .negatives import Negatives, augmented, blur
from .networks import ARCHITECTURES

STEPS = 450
REAL_BATCH, OTHER_BATCH = 60, 36
LEARNING_RATE = 4e-3
AVERAGED_SHARE = 1 / 15  # of the training that the averaged weights remember
CLUSTERS = 10  # pseudo-classes of unlabelled images, which only shape the features
CHUNK = 256  # images classified at once: what fits a core's cache


def trained_networks(
    images: Float[Tensor, "N 1 28 28"],
    classes: Int[Tensor, " N"],
    outputs: int,
    steps: int = STEPS,
    tell: Callable[[float], None] | None = None,
    seed: int = 0,
) -> list[nn.Module]:
    """Both classifiers, trained one after the other, about half a minute each on one core.

    Args:
        images: in [0, 1].
        classes: of the images, each below outputs - 1.
        outputs: classes and, the last, "none".
        steps: of training, each.
        tell: is handed the share that is done, [0, 1], after each step.
        seed: of the first one; the second has the next.
    """
    networks: list[nn.Module] = []
    for before, build in enumerate(ARCHITECTURES):
        stepped = None if tell is None else _counted(tell, before, steps)
        networks.append(_trained(build, images, classes, outputs, steps, seed + before, stepped))
    return networks


def _counted(tell: Callable[[float], None], before: int, steps: int) -> Callable[[int], None]:
    return lambda done: tell((before + done / steps) / len(ARCHITECTURES))


def _trained(
    build: Callable[[int], nn.Module],
    images: Tensor,
    classes: Tensor,
    outputs: int,
    steps: int,
    seed: int,
    stepped: Callable[[int], None] | None,
) -> nn.Module:
    """One classifier: cross-entropy on augmented images and negatives, the weights averaged over the steps."""
    generator = torch.Generator().manual_seed(seed)
    none = torch.full((OTHER_BATCH,), outputs - 1)
    with torch.random.fork_rng(devices=[]):  # initial weights and dropout draw from the global generator
        torch.manual_seed(seed)
        network, averaged = build(outputs), build(outputs)
        averaged.load_state_dict(network.state_dict())
        others = Negatives(images, classes, generator)
        optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=0.02)
        weight = min(1.0, 1.0 / (AVERAGED_SHARE * steps))  # of the newest step in the average
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.15)
        for step in range(steps):
            chosen = torch.randint(0, len(images), (REAL_BATCH,), generator=generator)
            batch = augmented(torch.cat([images[chosen], others.draw(OTHER_BATCH, generator)]), generator)
            loss = F.cross_entropy(network(batch)[0], torch.cat([classes[chosen], none]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for mean, now in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
                    mean.copy_(now if not mean.is_floating_point() else mean.lerp(now, weight))
            if stepped is not None:
                stepped(step + 1)
        averaged.eval()
        with torch.no_grad():  # one number, so that distances between features mean the same for every classifier
            features = torch.cat([averaged(part)[1] for part in images.split(CHUNK)])
            averaged.get_buffer("spread").copy_(features.var(dim=0).mean().sqrt().clamp_min(1e-6))
    return averaged


def clusters(images: Float[Tensor, "N 1 H W"]) -> Int[Tensor, " N"]:
    """Pseudo-classes: k-means of the blurred images, the centres started far from each other.

    Source:
        Learning features from cluster assignments: DeepCluster, Caron et al. 2018.
    """
    points = F.avg_pool2d(blur(images, torch.ones(len(images))), 2).flatten(1)
    chosen = [0]
    for _ in range(min(CLUSTERS, len(points)) - 1):
        chosen.append(int(torch.cdist(points, points[chosen]).amin(dim=1).argmax()))
    centres = points[chosen]
    nearest = torch.cdist(points, centres).argmin(dim=1)
    for _ in range(20):
        total = torch.zeros_like(centres).index_add_(0, nearest, points)
        count = torch.bincount(nearest, minlength=len(centres))[:, None]
        centres = torch.where(count > 0, total / count.clamp_min(1), centres)
        nearest = torch.cdist(points, centres).argmin(dim=1)
    return nearest
