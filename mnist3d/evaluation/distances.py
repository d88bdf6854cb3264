"""How far rendered images are from real ones, as sets.

Pure functions of features or of pixels.
Features are those of our classifiers, instead of Inception's as in the papers.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SUBSETS, SUBSET_SIZE = 20, 500  # of the kernel distance: means over 20 draws, as large as the sets allow up to 500
NEIGHBOURS = 3  # k of the manifold estimate: Kynkaanniemi et al. 2019, section 3
COMPARED_SIZE = 28  # pixels: nearest images are looked up at this size at most
ROWS = 256  # images compared at once: bounds the memory of the distance matrix


def frechet_distance(real: Float[Tensor, "N F"], rendered: Float[Tensor, "M F"]) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), the means and covariances of two sets of features.

    With S1 = A^T A and S2 = B^T B the trace of (S1 S2)^(1/2) is the sum of the singular values of A B^T. The
    eigenvalues of S1 S2 would do too, but the root of one that is rounding and nothing else is far above rounding.

    Args:
        real: two or more.
        rendered: two or more.

    Returns:
        In float64, >= 0; 0 for equal means and covariances.

    Raises:
        ValueError: a set of one feature vector has no covariance; give more.

    Source:
        Heusel et al. 2017, eq. 6; Dowson and Landau 1982 for the distance of two normal distributions.
    """
    _two_or_more(real, rendered)
    (mean, root), (other_mean, other_root) = _moments(real), _moments(rendered)
    overlap = torch.linalg.svdvals(root @ other_root.T).sum()
    squares = (mean - other_mean).square().sum() + root.square().sum() + other_root.square().sum()
    return max(0.0, float(squares - 2.0 * overlap))


def _moments(features: Float[Tensor, "N F"]) -> tuple[Float[Tensor, " F"], Float[Tensor, "K F"]]:
    """Mean, and A with A^T A the unbiased covariance."""
    mean = features.double().mean(dim=0)
    upper = torch.linalg.qr(features.double() - mean, mode="r").R
    return mean, upper / (len(features) - 1) ** 0.5


def kernel_distance(real: Float[Tensor, "N F"], rendered: Float[Tensor, "M F"], seed: int = 0) -> float:
    """Squared maximum mean discrepancy under the kernel (x.y / F + 1)^3: about 0 for one distribution, also below.

    The mean of `SUBSETS` unbiased estimates, each from `SUBSET_SIZE` of either set, or as many as the smaller one has.

    Args:
        real: two or more.
        rendered: two or more.
        seed: of the subsets that are drawn; the global random state is left as it was.

    Raises:
        ValueError: one feature vector has no other to compare with; give more.

    Source:
        Binkowski et al. 2018, eq. 4, with the kernel of their kernel inception distance; Gretton et al. 2012, lemma 6.
    """
    _two_or_more(real, rendered)
    size = min(SUBSET_SIZE, len(real), len(rendered))
    generator = torch.Generator().manual_seed(seed)

    def draw(features: Float[Tensor, "N F"]) -> Float[Tensor, "K F"]:
        return features[torch.randperm(len(features), generator=generator)[:size]].double()

    estimates = []
    for _ in range(SUBSETS):
        one, other = draw(real), draw(rendered)
        within = _mean_of_pairs(_cubic_kernel(one, one)) + _mean_of_pairs(_cubic_kernel(other, other))
        estimates.append(within - 2.0 * _cubic_kernel(one, other).mean())
    return float(torch.stack(estimates).mean())


def _cubic_kernel(left: Float[Tensor, "N F"], right: Float[Tensor, "M F"]) -> Float[Tensor, "N M"]:
    return (left @ right.T / left.shape[1] + 1.0) ** 3


def _mean_of_pairs(kernel: Float[Tensor, "N N"]) -> Float[Tensor, ""]:
    """Mean over two different members: a member with itself would bias it."""
    return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))


def _two_or_more(real: Float[Tensor, "N F"], rendered: Float[Tensor, "M F"]) -> None:
    if min(len(real), len(rendered)) < 2:
        raise ValueError(f"{len(real)} real and {len(rendered)} rendered feature vectors: must be >= 2 of each")


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


def nearest_distance(images: Float[Tensor, "N 1 H W"], training: Float[Tensor, "M 1 H W"]) -> float:
    """Mean over the images of the distance to the nearest training image: what is copied comes near 0.

    Args:
        images: in [0, 1].
        training: in [0, 1], of the same size.

    Returns:
        Root mean square difference of the pixels, [0, 1].
    """
    views, known = _small(images), _small(training)
    nearest = [torch.cdist(rows, known).amin(dim=1) for rows in views.split(ROWS)]
    return float(torch.cat(nearest).mean()) / views.shape[1] ** 0.5


def _small(images: Float[Tensor, "N 1 H W"]) -> Float[Tensor, "N P"]:
    if images.shape[-1] > COMPARED_SIZE:
        images = F.interpolate(images, (COMPARED_SIZE, COMPARED_SIZE), mode="bilinear", antialias=True)
    return images.flatten(1)
