"""How good and how diverse views are.

Classifiers trained on images that the sculpture never saw, the figures they give, and the pictures that show them.
None of it takes part in the training: a loss on these classifiers would spoil the measurement.

    classifiers = load_classifiers(held_out.images, held_out.labels, held_out.class_names)
    card = score_views(volume, renderer, classifiers, training.images, fixed_rotations(poses))
    card.poses["sphere"].legible, card.poses["sphere"].effective_classes
"""

from .background import BackgroundTraining
from .classifiers import Classifiers, Reading, cached_classifiers, load_classifiers
from .scores import ImageScore, Scorecard, fixed_rotations, quick_score, score_images, score_views
from .view_atlas import turntable_strip, view_atlas

__all__ = [
    "BackgroundTraining",
    "Classifiers",
    "ImageScore",
    "Reading",
    "Scorecard",
    "cached_classifiers",
    "fixed_rotations",
    "load_classifiers",
    "quick_score",
    "score_images",
    "score_views",
    "turntable_strip",
    "view_atlas",
]
