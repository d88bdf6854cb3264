"""What runs of a sweep are compared by: how a pair of classifiers reads their views that scores nothing else.

Trained on the held-out images as the scorecard's are, with another seed, and kept beside them under a name of its own.
The scorecard's have no part in any choice, so that what they say of the run that was chosen is still worth something.
"""

import io
from pathlib import Path

import torch
from PIL import Image

from ..data.images import load_images
from ..errors import ConfigError
from ..evaluation import Classifiers, ImageScore, load_classifiers, score_images, view_atlas
from ..geometry.rotations import sample_rotations
from ..rendering.renderer import render_views
from ..runs.at_work import AtWork
from ..runs.building import shows_classes
from ..runs.class_paths import import_volume_class
from ..runs.config import Config
from ..runs.loading import Run, load_run

SEED = 20_260_724  # of the pair; the scorecard's have 0 and 1
VIEWS, VIEW_SEED = 1000, 1_299_709  # standard error of a share of one half .016; other views than the scorecard's
MAP_WIDTH, QUALITY = 1400, 85  # of a map on the page: pixels, JPEG's


class Selection:
    """Reads runs of a sweep.

    Args:
        kind: of `sweeps.options.SCORES`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._pairs: dict[str, Classifiers | None] = {}

    def prepare(self, config: Config, must: bool) -> None:
        """Have the classifiers for a run's images, trained now if there are none: a minute or two.

        Args:
            config: of the run.
            must: whether a run without them is an error.

        Raises:
            ConfigError: its images, or its targets, have no classes, and it must be scored.
            DataError: its images cannot be read.
        """
        if self.kind != "none" and self._pair(config) is None and must:
            images = f"images of data.name={config.data.name}" if shows_classes(config) else "letters or image files"
            raise ConfigError(
                f"score={self.kind}: the {images} have no classes; must be none, without halving and keep=best"
            )

    def score(self, path: Path, config: Config) -> float | None:
        """How good a run is; None where nothing is compared, or its images or targets have no classes.

        Args:
            path: the run directory.
            config: of the run, as the user gave it.
        """
        pair = self._pair(config)
        if self.kind == "none" or pair is None:
            return None
        run = _opened(path, config)
        rotations = sample_rotations(VIEWS, torch.Generator().manual_seed(VIEW_SEED), config.poses)
        return figure(self.kind, score_images(render_views(run.volume, run.renderer, rotations), pair))

    def map(self, path: Path, config: Config) -> bytes:
        """The view atlas of a run for a page, as a JPEG."""
        run = _opened(path, config)
        atlas = Image.fromarray(view_atlas(run.volume, run.renderer, self._pair(config)))
        atlas.thumbnail((MAP_WIDTH, MAP_WIDTH))
        content = io.BytesIO()
        atlas.save(content, "JPEG", quality=QUALITY)
        return content.getvalue()

    def _pair(self, config: Config) -> Classifiers | None:
        if self.kind == "none" or not shows_classes(config):
            return None
        key = f"{config.data} {config.renderer.image_size}"
        if key not in self._pairs:
            held_out = load_images(config.data, config.renderer.image_size, "held_out")
            pair = None
            if held_out.labels is not None:
                with AtWork("training the classifiers for selection") as work:
                    pair = load_classifiers(
                        held_out.images, held_out.labels, held_out.class_names, tell=work.tell, seed=SEED
                    )
            self._pairs[key] = pair
        return self._pairs[key]


def figure(kind: str, score: ImageScore) -> float | None:
    """One number of what was read.

        balanced = legible * effective classes / classes

    A share alone is highest for a volume that shows one class everywhere.

    Args:
        kind: balanced, legible or clean.
        score: of the views.
    """
    if score.legible is None or score.effective_classes is None or not score.histogram:
        return None
    if kind == "balanced":
        return score.legible * score.effective_classes / len(score.histogram)
    return score.legible if kind == "legible" else score.clean


def _opened(path: Path, config: Config) -> Run:
    """A run of the user's own sweep, whose class of volume the user has named."""
    return load_run(path, trusted=[import_volume_class(config.volume["class_path"])])
