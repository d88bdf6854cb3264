"""Pictures that are none of the classes, and the wear that every picture gets alike.

What it is: how training batches of the classifiers are made, out of any pictures, by an explicit generator.
What it is not: it knows no volumes; a classifier must not have seen what it classifies.

Two traps shape it. Positives and negatives must get the same resampling, blur and noise, or a judge learns
"interpolated = digit": so both go through one function, `wear`, in one batch. And a digit that is mirrored,
turned or cut may still be one (0, 1, 8; 6 and 9; half an 8), and which ones depends on the data: so only those
count as no digit that lie far from every real picture, in classes where hardly any comes close.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

Pictures = Float[Tensor, "N 1 H W"]
POOL_LIMIT = 2000  # pictures that distorted ones are compared with: the distances are a POOL_LIMIT^2 matrix
NEAR_QUANTILE = 0.75  # of the distances between real pictures of a class and their nearest real neighbours
NEAR_MARGIN = 1.15  # nearer than this many times that quantile: may still be a picture of the class
NEAR_SHARE = 0.1  # a class of which more than this share comes near gives no negatives of that kind
BROKEN = 0.35  # share of its light that a picture must lose before it counts as broken
HOLLOW = 0.4  # radius of the erased middle, half the picture's width is 1
MAX_BLUR = 1.0  # pixels, standard deviation
MAX_NOISE = 0.07  # of brightness, standard deviation


def wear(pictures: Pictures, generator: Generator) -> Pictures:
    """What a rendering does to a picture: other place, size, slant and bend, blur, uneven light, haze and noise.

    Args:
        pictures: in [0, 1].
        generator: on the CPU, advanced by the call.
    """
    count, _, height, width = pictures.shape
    angle, shear = _uniform(-0.17, 0.17, generator, count), _uniform(-0.15, 0.15, generator, count)
    size, aspect = _uniform(0.9, 1.18, generator, count), _uniform(0.92, 1.09, generator, count)
    shift = _uniform(-0.1, 0.1, generator, count, 2)
    rows = [torch.stack([angle.cos() * aspect, shear - angle.sin()], dim=-1)]
    rows += [torch.stack([angle.sin(), angle.cos() / aspect], dim=-1)]
    affine = torch.cat([torch.stack(rows, dim=1) * size[:, None, None], shift[:, :, None]], dim=2)
    grid = F.affine_grid(affine, list(pictures.shape), align_corners=False)
    bend = 0.07 * torch.randn(count, 2, 4, 4, generator=generator) * _uniform(0.0, 1.0, generator, count, 1, 1, 1)
    grid = grid + F.interpolate(bend, (height, width), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    worn = F.grid_sample(pictures, grid, align_corners=False)
    thicker = F.max_pool2d(worn, 3, stride=1, padding=1)
    worn = worn + _uniform(0.0, 0.6, generator, count, 1, 1, 1) * _chance(0.4, generator, count) * (thicker - worn)
    worn = blur(worn, _uniform(0.0, MAX_BLUR, generator, count))
    light = F.interpolate(0.2 * torch.randn(count, 1, 4, 4, generator=generator), (height, width), mode="bicubic")
    worn = (worn * light.exp()).clamp(0.0, 1.0) ** _uniform(0.7, 1.4, generator, count, 1, 1, 1)
    worn = worn * _uniform(0.6, 1.0, generator, count, 1, 1, 1)
    haze = F.interpolate(torch.randn(count, 1, 5, 5, generator=generator), (height, width), mode="bicubic").abs()
    haze = haze * _uniform(0.0, 0.08, generator, count, 1, 1, 1) * _chance(0.5, generator, count)
    worn = worn + haze * (1.0 - worn)
    noise = torch.randn(worn.shape, generator=generator) * _uniform(0.0, MAX_NOISE, generator, count, 1, 1, 1)
    return (worn + noise * _chance(0.6, generator, count)).clamp(0.0, 1.0)


def blur(pictures: Pictures, sigma: Float[Tensor, " N"]) -> Pictures:
    """Each picture under its own Gaussian, `sigma` in pixels; 0 leaves it as it is."""
    count, _, height, width = pictures.shape
    reach = math.ceil(3 * MAX_BLUR)
    offset = torch.arange(-reach, reach + 1) / sigma[:, None].clamp_min(1e-3)
    kernel = torch.softmax(-0.5 * offset.square(), dim=1)
    stacked = pictures.reshape(1, count, height, width)
    stacked = F.conv2d(stacked, kernel[:, None, :, None], padding=(reach, 0), groups=count)
    stacked = F.conv2d(stacked, kernel[:, None, None, :], padding=(0, reach), groups=count)
    return stacked.reshape(pictures.shape)


class Negatives:
    """An endless source of pictures that are none of the classes.

    Args:
        pictures: real ones, in [0, 1].
        labels: their classes.
        generator: chooses up to 2,000 of them when there are more; advanced by the call.
    """

    def __init__(self, pictures: Pictures, labels: Int[Tensor, " N"], generator: Generator) -> None:
        chosen = torch.randperm(len(pictures), generator=generator)[:POOL_LIMIT]
        self.pictures, self.labels = pictures[chosen], labels[chosen]
        self.real = _comparable(self.pictures)
        self.near = self._near()
        pools = [self._changed(TURNS), self._changed(CUTS), self._broken(generator), self._overlapped(generator)]
        self.kinds: list[Callable[[int, Generator], Pictures]] = [self._shuffled, self._speckled, self._blobs]
        self.kinds += [self._blanks, self._noise]
        for pool in (pools[0], *pools):  # turned ones twice: a mirrored view is the likeliest failure
            if len(pool):
                self.kinds.append(lambda count, generator, pool=pool: pool[_pick(len(pool), generator, count)])

    def draw(self, count: int, generator: Generator) -> Pictures:
        """`count` fresh ones, the kinds about equally often, before `wear`."""
        each = -(-count // len(self.kinds))
        drawn = torch.cat([kind(each, generator) for kind in self.kinds])
        return drawn[torch.randperm(len(drawn), generator=generator)[:count]]

    def _near(self) -> Float[Tensor, " K"]:
        """For each class the distance below which a picture may still be one of it."""
        nearest = torch.cdist(self.real, self.real).fill_diagonal_(math.inf).amin(dim=1)
        near = torch.zeros(int(self.labels.max()) + 1)
        for label in self.labels.unique():
            near[label] = NEAR_MARGIN * nearest[self.labels == label].quantile(NEAR_QUANTILE)
        return near

    def _is_near(self, changed: Pictures) -> Tensor:
        """Which of the pictures lie near a real one; (N,) booleans."""
        if not len(changed):  # of one class nothing overlaps with another
            return torch.zeros(0, dtype=torch.bool)
        distance, neighbour = torch.cdist(_comparable(changed), self.real).min(dim=1)
        return distance < self.near[self.labels[neighbour]]

    def _changed(self, changes: list[Callable[[Tensor], Tensor]]) -> Pictures:
        """The far ones of the changed pictures, in the classes where hardly any comes near."""
        far = [self.pictures[:0]]
        for change in changes:
            changed = change(self.pictures)
            is_near = self._is_near(changed)
            for label in self.labels.unique():
                own = self.labels == label
                if float(is_near[own].float().mean()) <= NEAR_SHARE:
                    far.append(changed[own & ~is_near])
        return torch.cat(far)

    def _overlapped(self, generator: Generator) -> Pictures:
        """Two of different classes at once, one over the other or their ghostly mean: a view between two digits."""
        count = 2 * len(self.pictures)
        first, second = _pick(len(self.pictures), generator, count), _pick(len(self.pictures), generator, count)
        differ = self.labels[first] != self.labels[second]
        one, other = self.pictures[first[differ]], self.pictures[second[differ]]
        share = _uniform(0.42, 0.58, generator, len(one), 1, 1, 1)
        ghost = (1.5 * (share * one + (1.0 - share) * other)).clamp_max(1.0)
        both = torch.where(_chance(0.5, generator, len(one)), torch.maximum(one, other), ghost)
        return both[~self._is_near(both)]

    def _broken(self, generator: Generator) -> Pictures:
        """Scattered fragments: a picture of which a random field has eaten more than a third."""
        count, _, height, width = self.pictures.shape
        field = F.interpolate(torch.randn(count, 1, 5, 5, generator=generator), (height, width), mode="bicubic")
        broken = self.pictures * torch.sigmoid(12.0 * (field - _uniform(-0.1, 0.4, generator, count, 1, 1, 1)))
        lost = 1.0 - broken.sum(dim=(1, 2, 3)) / self.pictures.sum(dim=(1, 2, 3)).clamp_min(1e-6)
        return broken[(lost > BROKEN) & ~self._is_near(broken)]

    def _shuffled(self, count: int, generator: Generator) -> Pictures:
        """The picture's blocks in another order, 2 x 2 or 4 x 4 of them."""
        pictures = self.pictures[_pick(len(self.pictures), generator, count)]
        size = pictures.shape[-1]
        parts = 2 if bool(_chance(0.5, generator, 1)) else 4
        padded = F.pad(pictures, [0, -size % parts, 0, -size % parts])
        edge = padded.shape[-1] // parts
        blocks = padded.reshape(count, parts, edge, parts, edge).permute(0, 1, 3, 2, 4).flatten(1, 2)
        # A rotation of the order by at least one leaves no block in its place.
        order = torch.randperm(parts * parts, generator=generator)
        where = torch.empty_like(order)
        where[order] = order.roll(1)
        blocks = blocks[:, where].reshape(count, parts, parts, edge, edge).permute(0, 1, 3, 2, 4)
        return blocks.reshape(padded.shape)[:, :, :size, :size]

    def _speckled(self, count: int, generator: Generator) -> Pictures:
        """Many bright dots, over nothing or over a picture that they drown."""
        pictures = self.pictures[_pick(len(self.pictures), generator, count)] * _chance(0.5, generator, count)
        dots = torch.rand(pictures.shape, generator=generator) < _uniform(0.1, 0.5, generator, count, 1, 1, 1)
        kept = pictures * (torch.rand(pictures.shape, generator=generator) < 0.5)
        return torch.where(dots, torch.rand(pictures.shape, generator=generator), kept)

    def _blobs(self, count: int, generator: Generator) -> Pictures:
        """Smooth random patches, coarse to fine, with soft or hard borders."""
        height, width = self.pictures.shape[-2:]
        layers = [
            F.interpolate(torch.randn(count, 1, cells, cells, generator=generator), (height, width), mode="bicubic")
            for cells in (4, 6, 9)
        ]
        field = torch.stack(layers)[_pick(len(layers), generator, count), torch.arange(count)]
        hardness = _uniform(3.0, 15.0, generator, count, 1, 1, 1)
        return torch.sigmoid(hardness * (field - _uniform(0.2, 1.0, generator, count, 1, 1, 1)))

    def _blanks(self, count: int, generator: Generator) -> Pictures:
        """One brightness, black to white, or a picture too dim to be seen."""
        level = _uniform(0.0, 1.0, generator, count, 1, 1, 1) * _chance(0.6, generator, count)
        dim = self.pictures[_pick(len(self.pictures), generator, count)] * 0.06
        return torch.where(_chance(0.3, generator, count), dim, level.expand(count, 1, *self.pictures.shape[-2:]))

    def _noise(self, count: int, generator: Generator) -> Pictures:
        """Noise of any strength, dim too: a dim one fools scores that look at nearness or certainty alone."""
        height, width = self.pictures.shape[-2:]
        fine = torch.rand(count, 1, height, width, generator=generator)
        coarse = F.interpolate(torch.rand(count, 1, height // 2, width // 2, generator=generator), (height, width))
        noise = torch.where(_chance(0.5, generator, count), fine, coarse)
        return noise * _uniform(0.03, 1.0, generator, count, 1, 1, 1)


def _half(axis: int, first: bool) -> Callable[[Tensor], Tensor]:
    def erase(pictures: Tensor) -> Tensor:
        size = pictures.shape[axis]
        keep = torch.arange(size) < size // 2 if first else torch.arange(size) >= size // 2
        return pictures * keep.reshape([-1 if k == axis else 1 for k in range(4)])

    return erase


def _hollow(pictures: Tensor) -> Tensor:
    """Without the middle: what is left of a 3 is a bow."""
    y, x = (torch.linspace(-1.0, 1.0, size) for size in pictures.shape[-2:])
    return pictures * (y[:, None].square() + x.square() > HOLLOW**2)


TURNS: list[Callable[[Tensor], Tensor]] = [
    lambda pictures: pictures.flip(3),
    lambda pictures: pictures.flip(2),
    lambda pictures: pictures.flip(2, 3),
    lambda pictures: pictures.rot90(1, (2, 3)),
    lambda pictures: pictures.rot90(-1, (2, 3)),
]
CUTS: list[Callable[[Tensor], Tensor]] = [_half(axis, first) for axis in (2, 3) for first in (True, False)]


CUTS.append(_hollow)


def _comparable(pictures: Pictures) -> Float[Tensor, "N F"]:
    """Blurred, moved to the centre of mass and scaled to one norm, so that distances compare shapes."""
    height, width = pictures.shape[-2:]
    soft = F.avg_pool2d(pictures, 3, stride=1, padding=1)
    mass = soft.sum(dim=(1, 2, 3)).clamp_min(1e-6)
    x = (soft * torch.linspace(-1.0, 1.0, width)).sum(dim=(1, 2, 3)) / mass
    y = (soft * torch.linspace(-1.0, 1.0, height)[:, None]).sum(dim=(1, 2, 3)) / mass
    affine = torch.cat([torch.eye(2).expand(len(soft), 2, 2), torch.stack([x, y], dim=1)[:, :, None]], dim=2)
    centred = F.grid_sample(soft, F.affine_grid(affine, list(soft.shape), align_corners=False), align_corners=False)
    return F.normalize(centred.flatten(1), dim=1)


def _uniform(low: float, high: float, generator: Generator, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _chance(share: float, generator: Generator, count: int) -> Tensor:
    """True for about `share` of the pictures; (count, 1, 1, 1)."""
    return torch.rand(count, 1, 1, 1, generator=generator) < share


def _pick(size: int, generator: Generator, count: int) -> Tensor:
    return torch.randint(0, size, (count,), generator=generator)
