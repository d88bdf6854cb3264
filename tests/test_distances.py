"""Distances between sets of features: closed forms, what must not change them, and torchmetrics as a witness."""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from mnist3d.data.images import load_images
from mnist3d.data.options import DataOptions
from mnist3d.evaluation.distances import (
    SUBSET_SIZE,
    SUBSETS,
    frechet_distance,
    kernel_distance,
    nearest_distance,
    precision_recall,
)

ROUNDING = 1e-9  # of sums of some thousand terms in float64, relative to them


def normal(count: int, size: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(mean: Tensor, covariance: Tensor, seed: int = 0) -> Tensor:
    """400 features with exactly this mean and this unbiased covariance."""
    features = normal(400, len(mean), seed)
    features = features - features.mean(dim=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(features.T)), features.T, upper=False).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def turn(size: int) -> Tensor:
    """Some orthogonal matrix."""
    return torch.linalg.qr(normal(size, size, seed=5)).Q


def test_frechet_distance_of_a_shift_is_its_square():
    features = normal(400)
    shift = torch.tensor([1.0, 0.0, -2.0, 0.0, 0.0, 0.5], dtype=torch.float64)
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=ROUNDING)
    assert frechet_distance(features, features + shift) == pytest.approx(5.25, abs=ROUNDING)


def test_frechet_distance_of_normal_distributions_with_axes_in_common():
    """Covariances that commute: |m1 - m2|^2 plus the squared differences of the standard deviations on the axes."""
    axes, one, other = turn(4), torch.tensor([1.0, 2.0, 3.0, 0.5]).double(), torch.tensor([2.0, 2.0, 1.0, 4.0]).double()
    mean = torch.tensor([1.0, -1.0, 0.0, 2.0]).double()
    real = with_moments(torch.zeros(4).double(), axes @ torch.diag(one**2) @ axes.T)
    rendered = with_moments(mean, axes @ torch.diag(other**2) @ axes.T, seed=1)
    expected = 6.0 + 1.0 + 0.0 + 4.0 + 12.25  # |mean|^2, then (one - other)^2
    assert frechet_distance(real, rendered) == pytest.approx(expected, rel=ROUNDING)


def test_frechet_distance_of_normal_distributions_with_other_axes():
    """In two dimensions tr (S1 S2)^(1/2) is the root of tr(S1 S2) + 2 (det S1 det S2)^(1/2)."""
    one = torch.tensor([[2.0, 0.5], [0.5, 1.0]]).double()
    other = torch.tensor([[1.0, -0.9], [-0.9, 3.0]]).double()
    overlap = ((one @ other).trace() + 2.0 * (one.det() * other.det()).sqrt()).sqrt()
    expected = float(one.trace() + other.trace() - 2.0 * overlap)
    zero = torch.zeros(2).double()
    distance = frechet_distance(with_moments(zero, one), with_moments(zero, other, seed=1))
    assert distance == pytest.approx(expected, rel=ROUNDING)


def test_frechet_distance_of_sets_smaller_than_their_features():
    """Two points each: the covariances have rank 1, and the distance is that of the two lines' normal distributions."""
    real = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]).double()  # variance 2 along x
    rendered = torch.tensor([[0.0, -2.0, 0.0], [0.0, 2.0, 0.0]]).double()  # 8 along y
    assert frechet_distance(real, rendered) == pytest.approx(10.0, rel=ROUNDING)
    assert frechet_distance(real, 3.0 * real) == pytest.approx(8.0, rel=ROUNDING)  # (3 - 1)^2 times the variance
    many = normal(40, 128)
    assert frechet_distance(many, many) == pytest.approx(0.0, abs=ROUNDING)


def test_what_must_not_change_the_distances():
    real, rendered = normal(300), 0.7 * normal(200, seed=1) + 0.5
    for distance in (frechet_distance, kernel_distance):
        plain = distance(real, rendered)
        assert distance(real @ turn(6), rendered @ turn(6)) == pytest.approx(plain, rel=ROUNDING)
        assert distance(real.float(), rendered.float()) == pytest.approx(plain, rel=1e-5)  # the features' rounding
    plain = frechet_distance(real, rendered)
    assert frechet_distance(rendered, real) == pytest.approx(plain, rel=ROUNDING)
    assert frechet_distance(real + 7.0, rendered + 7.0) == pytest.approx(plain, rel=ROUNDING)
    assert frechet_distance(3.0 * real, 3.0 * rendered) == pytest.approx(9.0 * plain, rel=ROUNDING)


def test_kernel_distance_of_three_points_is_that_of_a_pocket_calculator():
    """(x y + 1)^3 of real 0, 1, 2 and rendered 0, 1, 1: every subset is the whole set."""
    real, rendered = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [1.0]])
    within = (1 + 1 + 27) / 3 + (1 + 1 + 8) / 3  # the three pairs of different members, of either set
    across = ((1 + 1 + 1) + (1 + 8 + 8) + (1 + 27 + 27)) / 9
    assert kernel_distance(real, rendered) == pytest.approx(within - 2.0 * across, rel=ROUNDING)
    # Features that are there twice halve x.y / F twice: the kernel is the same.
    assert kernel_distance(real.repeat(1, 2), rendered.repeat(1, 2)) == pytest.approx(within - 2 * across, rel=ROUNDING)


def test_kernel_distance_is_unbiased():
    """The mean over many pairs of sets of one distribution is 0 within its standard error; a biased one is 20 of it."""
    distances = torch.tensor([kernel_distance(normal(20, 3, 2 * k), normal(20, 3, 2 * k + 1)) for k in range(200)])
    assert abs(distances.mean()) < 3.0 * distances.std() / 200**0.5
    assert distances.min() < 0.0


def test_kernel_distance_tells_distributions_apart():
    one, same = normal(400).float(), normal(400, seed=1).float()
    before = torch.get_rng_state()
    near, far = kernel_distance(one, same), kernel_distance(one, same + 1.0)
    assert abs(near) < 0.1 < far
    assert near == kernel_distance(one, same)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_set_of_one_has_no_distance():
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="1 real and 5 rendered feature vectors: must be >= 2 of each"):
            distance(normal(1), normal(5))


class Given(nn.Module):
    """Features are handed to torchmetrics as if they were images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


@pytest.mark.parametrize(("real_count", "rendered_count", "size"), [(700, 600, 128), (90, 50, 128), (40, 60, 5)])
def test_torchmetrics_says_the_same(real_count, rendered_count, size):
    """Subsets are the same to the member: the global generator with a seed draws as one of our own does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports, and of the memory it takes
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        frechet = FrechetInceptionDistance(feature=Given(size), normalize=True)
        subset = min(SUBSET_SIZE, real_count, rendered_count)
        kernel = KernelInceptionDistance(feature=Given(size), subsets=SUBSETS, subset_size=subset)
    real, rendered = normal(real_count, size).relu(), 3.0 * normal(rendered_count, size, seed=1).relu()
    for metric in (frechet, kernel):
        metric.update(real, real=True)
        metric.update(rendered, real=False)
    # Theirs takes roots of eigenvalues: for sets smaller than their features, of rounding.
    assert frechet_distance(real, rendered) == pytest.approx(float(frechet.compute()), rel=1e-6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = float(kernel.compute()[0])
    assert kernel_distance(real, rendered, seed=3) == pytest.approx(expected, rel=ROUNDING)


def test_precision_and_recall():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(300, 4, generator=generator), torch.randn(300, 4, generator=generator) + 40.0
    assert precision_recall(torch.cat([left, right]), left) == pytest.approx((1.0, 0.5))  # half the modes are missing
    assert precision_recall(left, torch.cat([left, right])) == pytest.approx((0.5, 1.0))  # half of it is rubbish
    assert all(math.isnan(value) for value in precision_recall(left[:3], right))


def test_precision_and_recall_reach_as_far_as_the_third_neighbour():
    real, rendered = torch.tensor([[0.0], [1], [2], [3]]), torch.tensor([[5.5], [5.6], [5.7], [9.2]])
    # Reach of the real: 3, 2, 2, 3; 5.5, 5.6 and 5.7 lie within that of 3. With the second neighbour none would.
    # Reach of the rendered: 3.7, 3.6, 3.5, 3.7; 3 and 2 lie within that of 5.5.
    assert precision_recall(real, rendered) == (0.75, 0.5)


def test_copies_lie_at_distance_zero():
    images = load_images(DataOptions(limit=300), 28).images
    assert nearest_distance(images[:20], images) == pytest.approx(0.0, abs=1e-3)  # cdist's rounding, float32
    assert nearest_distance(torch.zeros(2, 1, 28, 28), torch.ones(3, 1, 28, 28)) == pytest.approx(1.0)
