"""How far rendered pictures are from real ones, as sets.

What it is: pure functions of features or of pixels. What it is not: it does not know what a digit is.
The distances between distributions are torchmetrics', fed with our classifiers' features instead of Inception's.
"""

import warnings

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SUBSETS, SUBSET_SIZE = 20, 500  # of the kernel distance: means over 20 draws, as large as the sets allow up to 500
NEIGHBOURS = 3  # k of the manifold estimate: Kynkaanniemi et al. 2019, section 3
COMPARED_SIZE = 28  # pixels: nearest pictures are looked up at this size at most
ROWS = 256  # pictures compared at once: bounds the memory of the distance matrix


class _Given(nn.Module):
    """Features are computed once and handed to torchmetrics as if they were pictures."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Float[Tensor, "N F"], rendered: Float[Tensor, "M F"]) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), the means and covariances of two sets of features.

    Args:
        real: two or more.
        rendered: two or more.

    Source:
        Heusel et al. 2017, eq. 6, as torchmetrics computes it, in float64.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # costs seconds, and training does not need it

    metric = FrechetInceptionDistance(feature=_Given(real.shape[1]), normalize=True)
    metric.update(real.double(), real=True)
    metric.update(rendered.double(), real=False)
    return max(0.0, float(metric.compute()))


def kernel_distance(real: Float[Tensor, "N F"], rendered: Float[Tensor, "M F"], seed: int = 0) -> float:
    """Squared maximum mean discrepancy under a cubic kernel, unbiased: about 0 for one distribution, also below.

    Args:
        real: two or more.
        rendered: two or more.
        seed: of the subsets that are drawn; the global random state is left as it was.

    Source:
        Binkowski et al. 2018, eq. 4, as torchmetrics computes it.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(SUBSET_SIZE, len(real), len(rendered))
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all", UserWarning)
        torch.manual_seed(seed)
        metric = KernelInceptionDistance(feature=_Given(real.shape[1]), subsets=SUBSETS, subset_size=size)
        metric.update(real.double(), real=True)
        metric.update(rendered.double(), real=False)
        return float(metric.compute()[0])


def precision_recall(real: Float[Tensor, "N F"], rendered: Float[Tensor, "M F"]) -> tuple[float, float]:
    """Share of the rendered that lie among the real, and share of the real that lie among the rendered.

    A point lies among a set when it is nearer to some member than that member's third nearest neighbour.

    Args:
        real: four or more; as many as the rendered ones, or the two shares do not compare.
        rendered: four or more.

    Returns:
        Precision (quality) and recall (diversity), [0, 1]; nan for sets too small.

    Source:
        Kynkaanniemi et al. 2019, eq. 1 and 2, k = 3.
    """
    if min(len(real), len(rendered)) <= NEIGHBOURS:
        return float("nan"), float("nan")
    across = torch.cdist(rendered, real)
    precision = (across <= _reach(real)[None, :]).any(dim=1).float().mean()
    recall = (across <= _reach(rendered)[:, None]).any(dim=0).float().mean()
    return float(precision), float(recall)


def _reach(features: Float[Tensor, "N F"]) -> Float[Tensor, " N"]:
    """Distance to the k-th nearest other member."""
    return torch.cdist(features, features).kthvalue(NEIGHBOURS + 1, dim=1).values  # the first is the point itself


def nearest_distance(pictures: Float[Tensor, "N 1 H W"], training: Float[Tensor, "M 1 H W"]) -> float:
    """Mean over the pictures of the distance to the nearest training picture: what is copied comes near 0.

    Args:
        pictures: in [0, 1].
        training: in [0, 1], of the same size.

    Returns:
        Root mean square difference of the pixels, [0, 1].
    """
    views, known = _small(pictures), _small(training)
    nearest = [torch.cdist(rows, known).amin(dim=1) for rows in views.split(ROWS)]
    return float(torch.cat(nearest).mean()) / views.shape[1] ** 0.5


def _small(pictures: Float[Tensor, "N 1 H W"]) -> Float[Tensor, "N P"]:
    if pictures.shape[-1] > COMPARED_SIZE:
        pictures = F.interpolate(pictures, (COMPARED_SIZE, COMPARED_SIZE), mode="bilinear", antialias=True)
    return pictures.flatten(1)
