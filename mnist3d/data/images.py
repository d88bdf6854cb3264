"""Images to sculpt from: digits, fashion, letters, your own folder -> (N, 1, H, W) in [0, 1].

One function, `load_images`, over the sources in `SOURCES`. The default needs no network: 5,000 real MNIST digits come
with a dependency.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import DataError
from ..storage.memory import check_fits
from .options import DataOptions, Part
from .sources import DOWNLOADED, SOURCES, load_downloaded

DECIDED_THERE = ("images", "idx")  # sources of others' images, which see themselves to what is dark on white
AT_ONCE = 1000
SPLIT_SEED = 20260101  # which images are held out must never change between runs


@dataclass
class ImageSet:
    """Images of one source.

    Args:
        images: brightness in [0, 1].
        labels: class of each image; None where the source has none.
        class_names: one a class; empty without labels.
        remarks: what was decided about them that the user should know, a line each.
    """

    images: Float[Tensor, "N 1 H W"]
    labels: Int[Tensor, " N"] | None
    class_names: list[str]
    remarks: tuple[str, ...] = ()


def load_images(options: DataOptions, image_size: int, part: Part = "training", *, download: bool = True) -> ImageSet:
    """All images of a part of a source.

    Args:
        options: the source.
        image_size: pixels along each edge of the result; images of another size are resampled.
        part: "training", or "held_out": images that are not used in training.
        download: whether a source that is not there may be downloaded.

    Raises:
        DataError: missing, corrupt or unsuitable images.
    """
    if options.name in DOWNLOADED:
        loaded = load_downloaded(options, part, download)
    else:
        loaded = SOURCES[options.name](options, image_size, part)
    images, labels, names = loaded.images, loaded.labels, loaded.class_names
    if len(images) == 0:
        raise DataError(f"data.path={options.path}: no images for the part {part!r}")
    if not loaded.split_done:
        keep = _split(len(images), labels, options.held_out, part)
        images, labels = images[keep], labels[keep] if labels is not None else None
    if options.limit is not None and options.limit < len(images):
        keep = _evenly(len(images), labels, options.limit)
        images, labels = images[keep], labels[keep] if labels is not None else None
    if len(images) < 2:
        raise DataError(
            f"data.name={options.name}: {len(images)} images in the part {part!r}; 2 or more are needed "
            f"(data.held_out={options.held_out} keeps some back)"
        )
    if options.class_names is not None:
        if len(options.class_names) != len(names):
            raise DataError(
                f"data.class_names: {len(options.class_names)} names, but the data has {len(names)} classes"
            )
        names = list(options.class_names)
    if options.invert is True and options.name not in DECIDED_THERE:
        images = 255 - images
    width, height = loaded.largest or images.shape[:0:-1]
    remarks = [*loaded.remarks, *reduced(width, height, image_size)]
    what = f"renderer.image_size={image_size}: {len(images):,} images of that size take"
    # As numbers, and once more where they are joined.
    check_fits(8 * len(images) * image_size**2, what, "lower it, or set data.limit", DataError)
    # A few at a time: as numbers, images that are still as large as their files take four times the memory.
    parts = [
        shrunk_into_square(torch.tensor(some, dtype=torch.float32)[:, None] / 255.0, image_size, options.scale)
        for some in np.split(images, range(AT_ONCE, len(images), AT_ONCE))
    ]
    return ImageSet(torch.cat(parts), torch.tensor(labels) if labels is not None else None, names, tuple(remarks))


def reduced(width: int, height: int, image_size: int) -> list[str]:
    """A line about images that are larger than views, and what to do for finer ones; none where they are not."""
    if max(width, height) <= image_size:
        return []
    preset = "; --config drawings has 64" if image_size < 64 else ""
    return [
        f"renderer.image_size={image_size}: images of up to {width}x{height} are reduced to {image_size}x{image_size} "
        f"pixels; a larger --renderer.image_size keeps more of them{preset}"
    ]


def shrunk_into_square(
    images: Float[Tensor, "N 1 h w"], image_size: int, scale: float = 1.0
) -> Float[Tensor, "N 1 H W"]:
    """Square images at another size, with a black margin of whole pixels, the same on all sides.

    Args:
        images: brightness in [0, 1].
        image_size: pixels along each edge of the result.
        scale: edge of the image as a share of the result's.
    """
    margin = min(round(image_size * (1.0 - scale) / 2.0), (image_size - 1) // 2)
    size = (image_size - 2 * margin, image_size - 2 * margin)
    if images.shape[-2:] != size:
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True).clamp(0.0, 1.0)
    return F.pad(images, (margin,) * 4)


def _members(count: int, labels: np.ndarray | None) -> Iterator[np.ndarray]:
    """Indices of each class, shuffled in an order that never changes."""
    random = np.random.default_rng(SPLIT_SEED)
    for label in [None] if labels is None else np.unique(labels):
        yield random.permutation(np.arange(count) if labels is None else np.flatnonzero(labels == label))


def _split(count: int, labels: np.ndarray | None, share: float, part: Part) -> np.ndarray:
    chosen = []
    for members in _members(count, labels):
        held_out = round(share * len(members))
        chosen.append(members[:held_out] if part == "held_out" else members[held_out:])
    return np.sort(np.concatenate(chosen))


def _evenly(count: int, labels: np.ndarray | None, limit: int) -> np.ndarray:
    """Up to `limit` indices, the first of each class, then the second of each, and so on."""
    ranked = [(rank, index) for members in _members(count, labels) for rank, index in enumerate(members)]
    return np.sort(np.array([index for _, index in sorted(ranked)[:limit]]))
