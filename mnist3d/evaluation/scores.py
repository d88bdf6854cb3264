"""The figures of the scorecard: how legible, how diverse and how near to real images the views are.

Rotations in, a dataclass of plain numbers out. The share of legible views alone must never be the target: a volume
that shows a 1 everywhere has the highest.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..geometry.rotations import PoseOptions, sample_rotations
from ..rendering.renderer import AbsorptionRenderer, render_views
from ..volumes.base import Field
from .classifiers import Classifiers, Reading
from .distances import frechet_distance, kernel_distance, nearest_distance, precision_recall

VIEWS = 2000  # of each pose distribution: the standard error of a share of one half is .011
QUICK_VIEWS = 200  # standard error .035, about the noise between seeds
VIEW_SEED = 7_340_033  # not a seed that anybody trains with, so the views scored are fresh ones
REFERENCE_LIMIT = 2000  # real images whose features are compared with the views'
FORMAT = 2  # of the JSON: 1 named `poses` and `classifiers` otherwise
NEEDS_LABELS = "legibility needs labels: these images have none, so only the distances are given"


@dataclass
class ImageScore:
    """What the classifiers say of a set of images. None stands for what was not asked for, or cannot be said.

    Args:
        count: images.
        legible: share that both classifiers take for the same class, each above .5.
        clean: the same above .9.
        histogram: share of each class among the legible ones; all 0 when none is.
        guesses: share of each class among all, when one has to be named: what a collapse shows first.
        effective_classes: exp of the histogram's entropy, 0 to the number of classes.
        rarest_share: smallest entry of the histogram.
        frechet_distance: to real images, in the classifiers' features; 0 is the same.
        kernel_distance: likewise, unbiased.
        precision: share that lies among the real images' features.
        recall: share of the real images that lies among these ones' features.
        nearest_distance: mean root mean square difference to the nearest training image: near 0, they are copies.
    """

    count: int
    legible: float | None = None
    clean: float | None = None
    histogram: dict[str, float] | None = None
    guesses: dict[str, float] | None = None
    effective_classes: float | None = None
    rarest_share: float | None = None
    frechet_distance: float | None = None
    kernel_distance: float | None = None
    precision: float | None = None
    recall: float | None = None
    nearest_distance: float | None = None


@dataclass
class Scorecard:
    """A volume's scores for each pose distribution.

    Args:
        poses: one score a pose distribution.
        real: real images scored in the same way, one half against the other: what a perfect volume would get.
        class_names: one a class; empty without labels.
        classifiers: the version of the classifiers; scores of different versions do not compare.
        note: what could not be said, and why.
        format: of this record.
    """

    poses: dict[str, ImageScore]
    real: ImageScore
    class_names: list[str]
    classifiers: str
    note: str | None = None
    format: int = FORMAT

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers, for JSON."""
        return dataclasses.asdict(self)


@dataclass
class Reference:
    """Real images as the classifiers read them, to compare the views of any number of volumes with; `read_reference`.

    Args:
        features: of one half.
        score: of the other half.
    """

    features: Float[Tensor, "M F"]
    score: ImageScore


def fixed_rotations(
    own: PoseOptions | None = None, views: int = VIEWS, seed: int = VIEW_SEED
) -> dict[str, Float[Tensor, "B 3 3"]]:
    """The same rotations for every volume: euler_normal, sphere, and the run's own where that is another.

    Args:
        own: the pose distribution that the volume was sculpted with.
        views: of each distribution, B.
        seed: of the random generator; another one gives other fixed views.
    """
    distributions = {name: PoseOptions(name=name) for name in ("euler_normal", "sphere")}
    if own is not None:
        distributions.setdefault(own.name, own)
    return {
        name: sample_rotations(views, torch.Generator().manual_seed(seed), options)
        for name, options in distributions.items()
    }


def score_views(
    volume: Field,
    renderer: AbsorptionRenderer,
    classifiers: Classifiers,
    training: Float[Tensor, "N 1 H W"],
    rotations: Mapping[str, Float[Tensor, "B 3 3"]] | None = None,
    reference: Reference | None = None,
) -> Scorecard:
    """The whole scorecard.

    Args:
        volume: what is scored.
        renderer: makes the views; of the size that the volume was sculpted at.
        classifiers: trained on images that the volume never saw.
        training: the images that the volume did see, in [0, 1], of the renderer's size.
        rotations: the views of each pose distribution; default `fixed_rotations()`.
        reference: of these images, where they have been read before.

    Example:
        >>> classifiers = load_classifiers(held_out.images, held_out.labels, held_out.class_names)
        >>> score_views(volume, renderer, classifiers, training.images).poses["sphere"].legible
    """
    rotations = fixed_rotations() if rotations is None else rotations
    training = training.detach().float().cpu()
    reference = read_reference(classifiers, training) if reference is None else reference
    scores = {
        name: score_images(render_views(volume, renderer, poses), classifiers, reference.features, training)
        for name, poses in rotations.items()
    }
    note = None if classifiers.class_names else NEEDS_LABELS
    return Scorecard(scores, reference.score, classifiers.class_names, classifiers.version, note)


def read_reference(classifiers: Classifiers, training: Float[Tensor, "N 1 H W"]) -> Reference:
    """The real images of `score_views`, read once for several volumes.

    Args:
        classifiers: as for `score_views`.
        training: likewise.
    """
    half, control = _halves(training.detach().float().cpu())
    known = classifiers.read(half).features
    return Reference(known, score_images(control, classifiers, known, half))


def quick_score(
    volume: Field,
    renderer: AbsorptionRenderer,
    classifiers: Classifiers,
    poses: PoseOptions | None = None,
    views: int = QUICK_VIEWS,
) -> ImageScore:
    """The shares alone, over few views, in a fraction of a second: for every few hundred steps of a run.

    Args:
        volume: what is scored.
        renderer: makes the views.
        classifiers: as for `score_views`.
        poses: the distribution of the views; default euler_normal.
        views: how many; the same ones each time.
    """
    rotations = sample_rotations(views, torch.Generator().manual_seed(VIEW_SEED), poses)
    return score_images(render_views(volume, renderer, rotations), classifiers)


def score_images(
    images: Float[Tensor, "N 1 H W"],
    classifiers: Classifiers,
    real_features: Float[Tensor, "M F"] | None = None,
    training: Float[Tensor, "T 1 H W"] | None = None,
) -> ImageScore:
    """The scores of any images: views, or real ones as a control.

    Args:
        images: in [0, 1].
        classifiers: as for `score_views`.
        real_features: `classifiers.read(real).features`; without them no distances between distributions.
        training: of the same size; without them no distance to the nearest.
    """
    reading = classifiers.read(images)
    score = ImageScore(len(images))
    if classifiers.class_names:
        _score_classes(score, reading, classifiers.class_names)
    if real_features is not None:
        score.frechet_distance = frechet_distance(real_features, reading.features)
        score.kernel_distance = kernel_distance(real_features, reading.features)
        score.precision, score.recall = precision_recall(real_features, reading.features)
    if training is not None:
        score.nearest_distance = nearest_distance(images, training)
    return score


def _score_classes(score: ImageScore, reading: Reading, names: list[str]) -> None:
    score.legible = float(reading.legible.float().mean())
    score.clean = float(reading.clean.float().mean())
    shares = _shares(reading.label[reading.legible], len(names))
    entropy = -torch.special.xlogy(shares, shares).sum()
    score.effective_classes = float(entropy.exp()) if score.legible > 0 else 0.0
    score.rarest_share = float(shares.min())
    score.histogram = dict(zip(names, shares.tolist(), strict=True))
    score.guesses = dict(zip(names, _shares(reading.guess, len(names)).tolist(), strict=True))


def _shares(labels: Int[Tensor, " N"], classes: int) -> Float[Tensor, " K"]:
    return torch.bincount(labels, minlength=classes).double() / max(len(labels), 1)


def _halves(training: Float[Tensor, "N 1 H W"]) -> tuple[Tensor, Tensor]:
    """Real images to compare with, and as many others as a control; fixed, and of all classes alike."""
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(VIEW_SEED))
    half = min(REFERENCE_LIMIT, len(training) // 2)
    return training[order[:half]], training[order[half : 2 * half]]
