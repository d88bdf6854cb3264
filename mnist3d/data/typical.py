"""One image that stands for its class: typical of it, and clear from the others."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .images import ImageSet
from .registration import blur

INK_RANGE = (0.2, 0.5)  # quantiles of a class's total brightness between which an exemplar lies
TYPICAL_SHARE = 0.1  # of those, nearest to the whole class, among which the ones clearest from others are taken
FELLOWS = 8  # the nearest of its own class that an exemplar is compared with, itself included
FEWEST_TYPICAL = 4
MEMBERS_COMPARED = 1000  # bounds the distances within a class and to the others


def exemplar(images: ImageSet, label: int) -> Float[Tensor, "1 H W"]:
    """One real image that stands for a class: typical of it, and clear from the others.

    Neither bold nor faint: targets share the volume, and bold ones leave the others no room. Typical: of those, the
    few with the smallest mean distance to the class, blurred and of unit length. Clear: of these, the one furthest
    from any image of another class, and near to some of its own.

    Args:
        images: labelled images.
        label: the class.
    """
    assert images.labels is not None
    # of unit length: else the thinnest and smallest images, near to everything, would count as typical
    features = F.normalize(blur(images.images).flatten(1), dim=1)
    ink = images.images.sum(dim=(1, 2, 3))
    own = (images.labels == label).nonzero()[:, 0]
    other = (images.labels != label).nonzero()[:, 0]
    compared, rivals = (_thinned(which, MEMBERS_COMPARED) for which in (own, other))
    low, high = ink[own].quantile(ink.new_tensor(INK_RANGE))
    middling = own[(ink[own] >= low) & (ink[own] <= high)]
    own = middling if len(middling) else own  # of two or three images none may lie between the quantiles
    distance = torch.cdist(features[own], features[compared])
    typical = distance.mean(dim=1).argsort()[: max(FEWEST_TYPICAL, round(TYPICAL_SHARE * len(own)))]
    if len(rivals):
        # against the nearest of its own class too: a blot makes an image unlike both
        clearance = torch.cdist(features[own[typical]], features[rivals]).amin(dim=1)
        fellows = distance[typical].sort(dim=1).values[:, 1:FELLOWS].mean(dim=1).nan_to_num()
        typical = typical[(clearance - fellows).argsort(descending=True)]
    return images.images[own[typical[0]]]


def _thinned(index: Tensor, most: int) -> Tensor:
    return index[:: max(1, math.ceil(len(index) / most))]
