"""Which table entry a grid corner of each level reads: the one definition that all implementations share.

Numbers of the levels, from the options of instant-ngp's configuration files; no tensors.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

# A product of three resolutions must fit 32 bits, as tiny-cuda-nn's index does: 1024^3 = 2^30.
MAX_RESOLUTION = 1024
FEATURES = (1, 2, 4, 8)  # a level, which tiny-cuda-nn is compiled for
# The resolution of a level is a ceiling: where growth hits a whole number, the last bit of exp2 would decide it, and
# a GPU's differs from a CPU's. Growing by this share less puts such a level safely below. It may bring another level,
# by chance, to a whole number (16 of some 10,000 encodings): then the next share is taken that does not.
GROWTH_MARGINS = (2e-6, 2.5e-6, 1.5e-6, 3e-6, 1e-6, 3.5e-6)
# How far a GPU's scale may be from a CPU's, as a share of scale + 1: tiny-cuda-nn is compiled with --use_fast_math,
# and ex2.approx is off by 2 ulp at most (CUDA C++ Programming Guide); and as much again for a CPU's own exp2.
LAST_BITS = 3e-7


@dataclass(frozen=True)
class HashLevels:
    """The levels of a multi-resolution hash encoding of [0, 1]^3.

        scale      = base_resolution * growth^level - 1         growth = per_level_scale * (1 - margin)
        position   = scale * x + 0.5                            corners at its floor and one further, an axis each
        resolution = ceil(scale) + 1
        entries    = min(resolution^3 rounded up to 8, 2^log2_hashmap_size)
        index      = (i + j * resolution + k * resolution^2) mod entries                where resolution^3 fits
                     (i xor j * 2654435761 xor k * 805459861) mod entries, in 32 bits   else

    Args:
        num_levels: L, 1 to 32.
        features_per_level: F: 1, 2, 4 or 8.
        log2_hashmap_size: largest table of a level, as a power of two, 4 to 24.
        base_resolution: of level 0, 1 to 1024.
        per_level_scale: ratio of a level's resolution to that of the one before, >= 1.
        margin: share by which levels grow less than asked, so that no resolution hangs on the last bit; default: 2e-6,
            or what is next to it where that does not do. All levels have the resolutions that 2e-6 gives.

    Raises:
        ValueError: a value outside its range, a finest level beyond 1024, or a ratio for which no margin is found.

    Source:
        Mueller, Evans, Schied, Keller, "Instant neural graphics primitives with a multiresolution hash encoding"
        (2022), section 3; tiny-cuda-nn, `include/tiny-cuda-nn/encodings/grid.h` (grid_scale, grid_resolution,
        grid_index, the offset table) and `common_device.h` (pos_fract).
    """

    num_levels: int
    features_per_level: int
    log2_hashmap_size: int
    base_resolution: int
    per_level_scale: float
    margin: float | None = None
    scales: tuple[float, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        checks = {
            "num_levels": (1 <= self.num_levels <= 32, "in [1, 32]"),
            "features_per_level": (self.features_per_level in FEATURES, f"one of {', '.join(map(str, FEATURES))}"),
            "log2_hashmap_size": (4 <= self.log2_hashmap_size <= 24, "in [4, 24]"),
            "base_resolution": (1 <= self.base_resolution <= MAX_RESOLUTION, f"in [1, {MAX_RESOLUTION}]"),
            "per_level_scale": (1.0 <= self.per_level_scale <= MAX_RESOLUTION, f"in [1, {MAX_RESOLUTION}]"),
        }
        for name, (valid, wanted) in checks.items():
            if not valid:
                raise ValueError(f"{name}={getattr(self, name)}: must be {wanted}")
        finest = self.base_resolution * self.per_level_scale ** (self.num_levels - 1)
        if finest > MAX_RESOLUTION + 0.5:
            raise ValueError(
                f"per_level_scale={self.per_level_scale:g}: level {self.num_levels} would have a resolution of "
                f"{finest:.0f}; it must be <= {MAX_RESOLUTION}"
            )
        if self.margin is None:
            object.__setattr__(self, "margin", self._safe_margin())
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self._scales(self.growth)))

    @property
    def growth(self) -> float:
        """What each level's resolution is really multiplied by; hand this to tiny-cuda-nn."""
        return self._growth(self.margin or 0.0)

    def _growth(self, margin: float) -> float:
        return self.per_level_scale * (1.0 - margin) if self.per_level_scale > 1.0 else 1.0

    def _scales(self, growth: float) -> np.ndarray:
        """In single precision, as tiny-cuda-nn computes it."""
        exponent = np.float32(np.log2(np.float32(growth)))
        steps = np.exp2(np.arange(self.num_levels, dtype=np.float32) * exponent)
        return steps * np.float32(self.base_resolution) - np.float32(1.0)

    def _safe_margin(self) -> float:
        """The first margin with which every level is further from a whole number than two machines may differ."""
        wanted = np.ceil(self._scales(self._growth(GROWTH_MARGINS[0])))
        level = np.arange(self.num_levels)
        for margin in GROWTH_MARGINS:
            growth = self._growth(margin)
            scales = self._scales(growth)
            # the host's log2, too, may be one ulp off, and counts once a level
            off = LAST_BITS + level * np.spacing(np.float32(np.log2(np.float32(growth)))) * math.log(2.0)
            # level 0, and all of a ratio of 1, are whole numbers without rounding
            near = (np.abs(scales - np.round(scales)) <= off * (scales + 1.0)) & (level > 0) & (growth > 1.0)
            if not near.any() and (np.ceil(scales) == wanted).all():
                return margin
        raise ValueError(
            f"per_level_scale={self.per_level_scale:.9g}: rounding would decide the resolution of a level, and each "
            f"machine rounds otherwise; must be a little less or more, such as {self.per_level_scale * 1.00002:.9g}"
        )

    @cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Of each level: corners along an edge."""
        return tuple(math.ceil(scale) + 1 for scale in self.scales)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Table entries of each level."""
        return tuple(min(-(-(n**3) // 8) * 8, 2**self.log2_hashmap_size) for n in self.resolutions)

    @cached_property
    def hashed(self) -> tuple[bool, ...]:
        """Whether a level's corners share entries."""
        return tuple(n**3 > size for n, size in zip(self.resolutions, self.sizes, strict=True))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First table entry of each level."""
        return tuple(sum(self.sizes[:level]) for level in range(self.num_levels))

    @property
    def entries(self) -> int:
        """Rows of the whole table."""
        return sum(self.sizes)

    @property
    def width(self) -> int:
        """Features of an encoded point: L * F."""
        return self.num_levels * self.features_per_level

    def coarsest(self, num_levels: int) -> "HashLevels":
        """The first so many of these levels, 1 to all; their table is the first rows of this one's."""
        if num_levels > self.num_levels:
            raise ValueError(f"num_levels={num_levels}: must be in [1, {self.num_levels}]")
        return replace(self, num_levels=num_levels)
