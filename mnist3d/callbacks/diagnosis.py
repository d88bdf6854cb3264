"""What the figures of a run's last steps say is wrong with it.

Pure functions of reports, of a volume and of tensors, and their thresholds, which stand between what healthy runs
measured and what broken ones did (docs/watchdog.md has the table). `watchdog` acts on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..training.report import StepReport, variety
from ..training.trainer import Trainer
from ..volumes.base import Field

Kind = Literal[
    "not_finite",
    "empty_volume",
    "saturated_volume",
    "dead_discriminator",
    "winning_discriminator",
    "one_class",
    "same_from_everywhere",
]
# Thresholds; see docs/watchdog.md for the ranges of healthy runs that they keep clear of.
EMPTY_BRIGHTNESS = 0.1  # of the real images' mean brightness
SATURATED_OPACITY = 0.99  # over PROBE_LENGTH, from which a point counts as opaque
SATURATED_SHARE = 0.9  # of the ball that is opaque
BALL_BRIGHTNESS = math.pi / 4.0  # of a white ball: the share of the image that the unit ball covers
DEAD_SPREAD = 0.01
WINNING_LOSS = 0.02
WINNING_GAP = 1.0  # a loss near zero with scores as near each other is no win
RUNAWAY_SPREAD = 100.0
ONE_CLASS_SHARE = 0.95
MIXED_CLASSES = 0.8  # real images of which a larger share is one class may well be sculpted as one class
SAME_VARIETY = 0.3  # of the real images' variety
SAME_QUANTILE = 0.8  # share of the steps that are below it
PROBE_LENGTH = 1.0 / 16.0  # world units: a voxel of the default grid before it grows
REAL_SAMPLE = 512  # real images that their variety is computed from


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong.

    Args:
        kind: a word for programs.
        message: a sentence for people, with the figures that show it.
    """

    kind: Kind
    message: str


@dataclass(frozen=True)
class RealFigures:
    """What the same figures are on the real images.

    Args:
        brightness: mean, [0, 1].
        variety: see `mnist3d.training.report.variety`.
        largest_class: share of the most frequent class; 1 without labels.
    """

    brightness: float
    variety: float
    largest_class: float

    @classmethod
    def of(cls, trainer: Trainer) -> "RealFigures":
        """Of the images that a trainer draws from."""
        images, labels = trainer.images, trainer.labels
        chosen = torch.linspace(0, len(images) - 1, min(REAL_SAMPLE, len(images))).long().to(images.device)
        largest = 1.0 if labels is None else torch.bincount(labels).max().item() / len(labels)
        return cls(images.mean().item(), variety(images[chosen]).item(), largest)


def diagnose(
    history: Sequence[StepReport], reals: RealFigures, *, window: int, opaque_share: float = 0.0
) -> Diagnosis | None:
    """What the last steps say is wrong, the worst first; None if nothing is.

    A figure that is no number counts at once. All else counts when it holds for most of `window` steps, views that
    are all alike for most of twice as many: single steps and the beginning of a run do not count.

    Args:
        history: reports of consecutive steps, oldest first; the last `2 * window` are read.
        reals: the figures on the real images.
        window: steps.
        opaque_share: see the function of that name.
    """
    if not history:
        return None
    if (name := _first_not_finite(history[-1])) is not None:
        return not_finite(name)
    if len(history) < window:
        return None
    whole = list(history)[-2 * window :]
    recent = whole[-window:]

    def middle(name: str) -> float:
        """Median of a figure; NaN, which is beyond no threshold, where it was not measured."""
        values = [value for report in recent if (value := report.number(name)) is not None]
        return median(values) if values else math.nan

    brightness = middle("mean_brightness")
    if brightness < EMPTY_BRIGHTNESS * reals.brightness:
        return Diagnosis(
            "empty_volume",
            f"the volume is empty, its views are black (mean brightness {brightness:.2g}, real {reals.brightness:.2g})",
        )
    if brightness > max(0.5 * (reals.brightness + BALL_BRIGHTNESS), reals.brightness):
        return Diagnosis(
            "saturated_volume",
            f"the volume is saturated, its views are white (mean brightness {brightness:.2g}, "
            f"real {reals.brightness:.2g})",
        )
    if opaque_share > SATURATED_SHARE:
        return Diagnosis(
            "saturated_volume", f"the volume is saturated, opaque nearly everywhere ({opaque_share:.0%} of it)"
        )
    if found := _diagnose_discriminator(middle("score_gap"), middle("score_spread"), middle("discriminator_loss")):
        return found
    return _diagnose_views(whole, reals) if len(whole) >= 2 * window else None


def _diagnose_discriminator(gap: float, spread: float, loss: float) -> Diagnosis | None:
    if spread < DEAD_SPREAD:
        return Diagnosis(
            "dead_discriminator", f"the discriminator is dead, its scores are all alike (they differ by {spread:.2g})"
        )
    if spread > RUNAWAY_SPREAD:
        return Diagnosis(
            "winning_discriminator", f"the discriminator's scores have run away (they differ by {spread:.2g})"
        )
    if gap > WINNING_GAP and abs(loss) < WINNING_LOSS:
        return Diagnosis(
            "winning_discriminator",
            f"the discriminator has won, the volume learns nothing from it (its loss is {loss:.2g}, the scores "
            f"differ by {gap:.2g})",
        )
    return None


def _diagnose_views(reports: Sequence[StepReport], reals: RealFigures) -> Diagnosis | None:
    varieties = sorted(value for report in reports if (value := report.number("view_variety")) is not None)
    if varieties and (alike := varieties[round(SAME_QUANTILE * (len(varieties) - 1))]) < SAME_VARIETY * reals.variety:
        return Diagnosis(
            "same_from_everywhere",
            f"the volume looks the same from everywhere, as a hollow shell does (variety of the views {alike:.2g}, "
            f"real {reals.variety:.2g})",
        )
    largest = [max(shares) for report in reports if (shares := report.metrics.get("class_shares"))]
    if largest and reals.largest_class <= MIXED_CLASSES and (share := fmean(largest)) > ONE_CLASS_SHARE:
        return Diagnosis("one_class", f"every view is read as the same class ({share:.0%} of them)")
    return None


def not_finite(name: str) -> Diagnosis:
    """The diagnosis of a figure that is no number."""
    return Diagnosis("not_finite", f"{name}: not a finite number any more")


def _first_not_finite(report: StepReport) -> str | None:
    for name in report.metrics:
        if (value := report.number(name)) is not None and not math.isfinite(value):
            return name.replace("_", " ")
    return None


@torch.no_grad()
def opaque_share(volume: Field, points: Float[Tensor, "P 3"]) -> float:
    """Share of the points whose surroundings let less than a hundredth of the light through.

        mean [1 - exp(-attenuation * length) > 0.99],   length = PROBE_LENGTH

    Args:
        volume: is asked for its attenuation.
        points: world points inside the unit ball.
    """
    attenuation, _ = volume(points)
    return (-torch.expm1(-attenuation * PROBE_LENGTH) > SATURATED_OPACITY).float().mean().item()


def ball_points(count: int) -> Float[Tensor, "P 3"]:
    """Points spread evenly through the unit ball, the same ones in every run."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, device="cpu"), dim=1)
    return directions * torch.rand(count, 1, generator=generator, device="cpu") ** (1.0 / 3.0)
