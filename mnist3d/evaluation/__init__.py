"""How good and how diverse the views of a volume are.

What it is: judges trained on pictures that the sculpture never saw, the figures they give, and the pictures that
show them. What it is not: no part of the training. It is handed a volume, a renderer and pictures, and knows
neither run directories nor the trainer.

    judges = load_judges(held_out.images, held_out.labels, held_out.class_names)
    card = score_views(volume, renderer, judges, training.images, fixed_rotations(poses))
    card.laws["sphere"].legible, card.laws["sphere"].effective_classes
"""

from .classifiers import Judges as Judges
from .classifiers import Reading as Reading
from .classifiers import cached_judges as cached_judges
from .classifiers import load_judges as load_judges
from .scores import PictureScore as PictureScore
from .scores import Scorecard as Scorecard
from .scores import fixed_rotations as fixed_rotations
from .scores import quick_score as quick_score
from .scores import score_pictures as score_pictures
from .scores import score_views as score_views
from .view_atlas import turntable_strip as turntable_strip
from .view_atlas import view_atlas as view_atlas
