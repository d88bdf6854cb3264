"""Images that are none of the classes, and the augmentation that every image gets alike.

How training batches of the classifiers are made, out of any images, by an explicit generator.

Two traps shape it. Positives and negatives must get the same resampling, blur and noise, or a classifier learns
"interpolated = digit": so both go through one function, `augmented`, in one batch. And a digit that is mirrored,
turned or cut may still be one (0, 1, 8; 6 and 9; half an 8), and which ones depends on the data: so only those
count as no digit that lie far from every real image, in classes where hardly any comes close.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

Images = Float[Tensor, "N 1 H W"]
POOL_LIMIT = 2000  # images that distorted ones are compared with: the distances are a POOL_LIMIT^2 matrix
NEAR_QUANTILE = 0.75  # of the distances between real images of a class and their nearest real neighbours
NEAR_MARGIN = 1.15  # nearer than this many times that quantile: may still be an image of the class
NEAR_SHARE = 0.1  # a class of which more than this share comes near gives no negatives of that kind
BROKEN = 0.35  # share of its light that an image must lose before it counts as broken
HOLLOW = 0.4  # radius of the erased middle, half the image's width is 1
MAX_BLUR = 1.0  # pixels, standard deviation
MAX_NOISE = 0.07  # of brightness, standard deviation


def augmented(images: Images, generator: Generator) -> Images:
    """What a rendering does to an image: other place, size, slant and bend, blur, uneven light, haze and noise.

    Args:
        images: in [0, 1].
        generator: on the CPU, advanced by the call.
    """
    count, _, height, width = images.shape
    angle, shear = _uniform(-0.17, 0.17, generator, count), _uniform(-0.15, 0.15, generator, count)
    size, aspect = _uniform(0.9, 1.18, generator, count), _uniform(0.92, 1.09, generator, count)
    shift = _uniform(-0.1, 0.1, generator, count, 2)
    rows = [torch.stack([angle.cos() * aspect, shear - angle.sin()], dim=-1)]
    rows += [torch.stack([angle.sin(), angle.cos() / aspect], dim=-1)]
    affine = torch.cat([torch.stack(rows, dim=1) * size[:, None, None], shift[:, :, None]], dim=2)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    bend = 0.07 * torch.randn(count, 2, 4, 4, generator=generator) * _uniform(0.0, 1.0, generator, count, 1, 1, 1)
    grid = grid + F.interpolate(bend, (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    out = F.grid_sample(images, grid, align_corners=False)
    thicker = F.max_pool2d(out, 3, stride=1, padding=1)
    out = out + _uniform(0.0, 0.6, generator, count, 1, 1, 1) * _chance(0.4, generator, count) * (thicker - out)
    out = blur(out, _uniform(0.0, MAX_BLUR, generator, count))
    light = F.interpolate(0.2 * torch.randn(count, 1, 4, 4, generator=generator), (height, width), mode="bicubic")
    out = (out * light.exp()).clamp(0.0, 1.0) ** _uniform(0.7, 1.4, generator, count, 1, 1, 1)
    out = out * _uniform(0.6, 1.0, generator, count, 1, 1, 1)
    haze = F.interpolate(torch.randn(count, 1, 5, 5, generator=generator), (height, width), mode="bicubic").abs()
    haze = haze * _uniform(0.0, 0.08, generator, count, 1, 1, 1) * _chance(0.5, generator, count)
    out = out + haze * (1.0 - out)
    noise = torch.randn(out.shape, generator=generator) * _uniform(0.0, MAX_NOISE, generator, count, 1, 1, 1)
    return (out + noise * _chance(0.6, generator, count)).clamp(0.0, 1.0)


def blur(images: Images, sigma: Float[Tensor, " N"]) -> Images:
    """Each image under its own Gaussian, `sigma` in pixels; 0 leaves it as it is."""
    count, _, height, width = images.shape
    reach = math.ceil(3 * MAX_BLUR)
    offset = torch.arange(-reach, reach + 1) / sigma[:, None].clamp_min(1e-3)
    kernel = torch.softmax(-0.5 * offset.square(), dim=1)
    stacked = images.reshape(1, count, height, width)
    stacked = F.conv2d(stacked, kernel[:, None, :, None], padding=(reach, 0), groups=count)
    stacked = F.conv2d(stacked, kernel[:, None, None, :], padding=(0, reach), groups=count)
    return stacked.reshape(images.shape)


class Negatives:
    """An endless source of images that are none of the classes.

    Args:
        images: real ones, in [0, 1].
        labels: their classes.
        generator: chooses up to 2,000 of them when there are more; advanced by the call.
    """

    def __init__(self, images: Images, labels: Int[Tensor, " N"], generator: Generator) -> None:
        chosen = torch.randperm(len(images), generator=generator)[:POOL_LIMIT]
        self.images, self.labels = images[chosen], labels[chosen]
        self.real = _comparable(self.images)
        self.near = self._near()
        pools = [self._changed(TURNS), self._changed(CUTS), self._broken(generator), self._overlapped(generator)]
        self.kinds: list[Callable[[int, Generator], Images]] = [self._shuffled, self._speckled, self._blobs]
        self.kinds += [self._blanks, self._noise]
        for pool in (pools[0], *pools):  # turned ones twice: a mirrored view is the likeliest failure
            if len(pool):
                self.kinds.append(lambda count, generator, pool=pool: pool[_pick(len(pool), generator, count)])

    def draw(self, count: int, generator: Generator) -> Images:
        """`count` fresh ones, the kinds about equally often, before `augmented`."""
        each = -(-count // len(self.kinds))
        drawn = torch.cat([kind(each, generator) for kind in self.kinds])
        return drawn[torch.randperm(len(drawn), generator=generator)[:count]]

    def _near(self) -> Float[Tensor, " K"]:
        """For each class the distance below which an image may still be one of it."""
        nearest = torch.cdist(self.real, self.real).fill_diagonal_(math.inf).amin(dim=1)
        near = torch.zeros(int(self.labels.max()) + 1)
        for label in self.labels.unique():
            near[label] = NEAR_MARGIN * nearest[self.labels == label].quantile(NEAR_QUANTILE)
        return near

    def _is_near(self, changed: Images) -> Tensor:
        """Which of the images lie near a real one; (N,) booleans."""
        if not len(changed):  # of one class nothing overlaps with another
            return torch.zeros(0, dtype=torch.bool)
        distance, neighbour = torch.cdist(_comparable(changed), self.real).min(dim=1)
        return distance < self.near[self.labels[neighbour]]

    def _changed(self, changes: list[Callable[[Tensor], Tensor]]) -> Images:
        """The far ones of the changed images, in the classes where hardly any comes near."""
        far = [self.images[:0]]
        for change in changes:
            changed = change(self.images)
            is_near = self._is_near(changed)
            for label in self.labels.unique():
                own = self.labels == label
                if float(is_near[own].float().mean()) <= NEAR_SHARE:
                    far.append(changed[own & ~is_near])
        return torch.cat(far)

    def _overlapped(self, generator: Generator) -> Images:
        """Two of different classes at once, one over the other or their ghostly mean: a view between two digits."""
        count = 2 * len(self.images)
        first, second = _pick(len(self.images), generator, count), _pick(len(self.images), generator, count)
        differ = self.labels[first] != self.labels[second]
        one, other = self.images[first[differ]], self.images[second[differ]]
        share = _uniform(0.42, 0.58, generator, len(one), 1, 1, 1)
        ghost = (1.5 * (share * one + (1.0 - share) * other)).clamp_max(1.0)
        both = torch.where(_chance(0.5, generator, len(one)), torch.maximum(one, other), ghost)
        return both[~self._is_near(both)]

    def _broken(self, generator: Generator) -> Images:
        """Scattered fragments: an image of which a random field has eaten more than a third."""
        count, _, height, width = self.images.shape
        field = F.interpolate(torch.randn(count, 1, 5, 5, generator=generator), (height, width), mode="bicubic")
        broken = self.images * torch.sigmoid(12.0 * (field - _uniform(-0.1, 0.4, generator, count, 1, 1, 1)))
        lost = 1.0 - broken.sum(dim=(1, 2, 3)) / self.images.sum(dim=(1, 2, 3)).clamp_min(1e-6)
        return broken[(lost > BROKEN) & ~self._is_near(broken)]

    def _shuffled(self, count: int, generator: Generator) -> Images:
        """The image's blocks in another order, 2 x 2 or 4 x 4 of them."""
        images = self.images[_pick(len(self.images), generator, count)]
        size = images.shape[-1]
        parts = 2 if bool(_chance(0.5, generator, 1)) else 4
        padded = F.pad(images, [0, -size % parts, 0, -size % parts])
        edge = padded.shape[-1] // parts
        blocks = padded.reshape(count, parts, edge, parts, edge).permute(0, 1, 3, 2, 4).flatten(1, 2)
        # A rotation of the order by at least one leaves no block in its place.
        order = torch.randperm(parts * parts, generator=generator)
        where = torch.empty_like(order)
        where[order] = order.roll(1)
        blocks = blocks[:, where].reshape(count, parts, parts, edge, edge).permute(0, 1, 3, 2, 4)
        return blocks.reshape(padded.shape)[:, :, :size, :size]

    def _speckled(self, count: int, generator: Generator) -> Images:
        """Many bright dots, over nothing or over an image that they drown."""
        images = self.images[_pick(len(self.images), generator, count)] * _chance(0.5, generator, count)
        dots = torch.rand(images.shape, generator=generator) < _uniform(0.1, 0.5, generator, count, 1, 1, 1)
        kept = images * (torch.rand(images.shape, generator=generator) < 0.5)
        return torch.where(dots, torch.rand(images.shape, generator=generator), kept)

    def _blobs(self, count: int, generator: Generator) -> Images:
        """Smooth random patches, coarse to fine, with soft or hard borders."""
        height, width = self.images.shape[-2:]
        layers = [
            F.interpolate(torch.randn(count, 1, cells, cells, generator=generator), (height, width), mode="bicubic")
            for cells in (4, 6, 9)
        ]
        field = torch.stack(layers)[_pick(len(layers), generator, count), torch.arange(count)]
        hardness = _uniform(3.0, 15.0, generator, count, 1, 1, 1)
        return torch.sigmoid(hardness * (field - _uniform(0.2, 1.0, generator, count, 1, 1, 1)))

    def _blanks(self, count: int, generator: Generator) -> Images:
        """One brightness, black to white, or an image too dim to be seen."""
        level = _uniform(0.0, 1.0, generator, count, 1, 1, 1) * _chance(0.6, generator, count)
        dim = self.images[_pick(len(self.images), generator, count)] * 0.06
        return torch.where(_chance(0.3, generator, count), dim, level.expand(count, 1, *self.images.shape[-2:]))

    def _noise(self, count: int, generator: Generator) -> Images:
        """Noise of any strength, dim too: a dim one fools scores that look at nearness or certainty alone."""
        height, width = self.images.shape[-2:]
        fine = torch.rand(count, 1, height, width, generator=generator)
        coarse = F.interpolate(torch.rand(count, 1, height // 2, width // 2, generator=generator), (height, width))
        noise = torch.where(_chance(0.5, generator, count), fine, coarse)
        return noise * _uniform(0.03, 1.0, generator, count, 1, 1, 1)


def _half(axis: int, first: bool) -> Callable[[Tensor], Tensor]:
    def erase(images: Tensor) -> Tensor:
        size = images.shape[axis]
        keep = torch.arange(size) < size // 2 if first else torch.arange(size) >= size // 2
        return images * keep.reshape([-1 if k == axis else 1 for k in range(4)])

    return erase


def _hollow(images: Tensor) -> Tensor:
    """Without the middle: what is left of a 3 is a bow."""
    y, x = (torch.linspace(-1.0, 1.0, size) for size in images.shape[-2:])
    return images * (y[:, None].square() + x.square() > HOLLOW**2)


TURNS: list[Callable[[Tensor], Tensor]] = [
    lambda images: images.flip(3),
    lambda images: images.flip(2),
    lambda images: images.flip(2, 3),
    lambda images: images.rot90(1, (2, 3)),
    lambda images: images.rot90(-1, (2, 3)),
]
CUTS: list[Callable[[Tensor], Tensor]] = [_half(axis, first) for axis in (2, 3) for first in (True, False)]


CUTS.append(_hollow)


def _comparable(images: Images) -> Float[Tensor, "N F"]:
    """Blurred, moved to the centre of mass and scaled to one norm, so that distances compare shapes."""
    height, width = images.shape[-2:]
    soft = F.avg_pool2d(images, 3, stride=1, padding=1)
    mass = soft.sum(dim=(1, 2, 3)).clamp_min(1e-6)
    x = (soft * torch.linspace(-1.0, 1.0, width)).sum(dim=(1, 2, 3)) / mass
    y = (soft * torch.linspace(-1.0, 1.0, height)[:, None]).sum(dim=(1, 2, 3)) / mass
    affine = torch.cat([torch.eye(2).expand(len(soft), 2, 2), torch.stack([x, y], dim=1)[:, :, None]], dim=2)
    centred = F.grid_sample(soft, F.affine_grid(affine, list(soft.shape), align_corners=False), align_corners=False)
    return F.normalize(centred.flatten(1), dim=1)


def _uniform(low: float, high: float, generator: Generator, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _chance(share: float, generator: Generator, count: int) -> Tensor:
    """True for about `share` of the images; (count, 1, 1, 1)."""
    return torch.rand(count, 1, 1, 1, generator=generator) < share


def _pick(size: int, generator: Generator, count: int) -> Tensor:
    return torch.randint(0, size, (count,), generator=generator)
