"""How good and how diverse views are.

What it is: judges trained on pictures that the sculpture never saw, the figures they give, and the pictures that
show them. What it is not: no part of the training. It is handed a volume, a renderer and pictures, and knows
neither run directories nor the trainer.

    judges = load_judges(held_out.images, held_out.labels, held_out.class_names)
    card = score_views(volume, renderer, judges, training.images, fixed_rotations(poses))
    card.laws["sphere"].legible, card.laws["sphere"].effective_classes
"""

from .classifiers import Judges, Reading, cached_judges, load_judges
from .scores import PictureScore, Scorecard, fixed_rotations, quick_score, score_pictures, score_views
from .view_atlas import turntable_strip, view_atlas

__all__ = [
    "Judges",
    "PictureScore",
    "Reading",
    "Scorecard",
    "cached_judges",
    "fixed_rotations",
    "load_judges",
    "quick_score",
    "score_pictures",
    "score_views",
    "turntable_strip",
    "view_atlas",
]
