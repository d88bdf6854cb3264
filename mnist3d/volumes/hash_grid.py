"""The hash-grid backend: a multi-resolution hash encoding and a small network."""

import math
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.arrays import computed
from ..kernels.hash_encoding import (
    HashLevels,
    choose_implementation,
    encode_and_evaluate,
    require_implementation,
    too_wide,
)
from .baking import CHANNELS, BakedField, baked_in_ball, check_arguments, in_cube
from .growth import checked_times
from .initial import scaled_normal

GPU = "cuda"  # where tinycudann computes
# Adam's epsilon for tables: entries that few points read have gradients far below its default 1e-8 (Mueller et al.
# 2022, section 4).
TABLE_EPS = 1e-15
Implementation = Literal["auto", "torch", "numba", "tinycudann"]


class HashGrid(BakedField):
    """A field without voxels: tables of features at several resolutions, and a small network.

        raw         = bias + network(hash_encode((point + 1) / 2))      ReLU between layers, no biases
        attenuation = softplus(raw[0]) / (2 / 48)
        absorbance  = sigmoid(raw[1])

    Rendered along rays, or, with `bake_resolution`, as the grid of its values at the voxels' centres.

    Args:
        num_levels: Number of levels (resolutions), 1 to 32.
        features_per_level: Numbers in each table entry: 1, 2, 4 or 8.
        log2_hashmap_size: Largest number of entries in the table of a level, as a power of two, 4 to 24.
        base_resolution: Grid corners along an edge of the coarsest level, 1 to 1024.
        per_level_scale: Ratio of the resolution of a level to that of the level before, >= 1; default: computed from
            max_resolution.
        max_resolution: Grid corners along an edge of the finest level, base_resolution to 1024; default 64. Give either
            this or per_level_scale.
        hidden_dim: Width of the network's hidden layers, 1 to 256; tinycudann has a fused network for 16, 32, 64 and
            128.
        num_layers: Number of linear layers of the network, 1 to 8; the last one is the output.
        implementation: Program that computes it: torch, numba (CPU), tinycudann (NVIDIA GPU), or auto, the fastest that
            agrees with torch here. All compute the same function. It is not saved with the volume.
        full_precision: With tinycudann: compute in float32 instead of half precision.
        bake_resolution: Evaluate the field once per step on a grid with this many voxels along each edge, 1 to 256, and
            render that grid. null: evaluate the field along the rays.
        grow_at: When the grid of bake_resolution doubles during training: ascending values of progress in (0, 1), or
            ascending steps >= 1. With n values it starts at bake_resolution / 2^n. null: never.
        levels_at: When the next finer level is added during training, in the form of grow_at. With n values the run
            starts with the num_levels - n coarsest levels. null: all levels from the start.
        initial_opacity: Opacity of a step of 2/48 world units at the start, > 0 and < 1.
        initial_brightness: Mean of 1 - absorbance at the start, in (0, 1).
        initial_noise: Standard deviation of the table's values at the start, >= 0; levels that are added later start at
            0.

    Raises:
        ValueError: a value outside its range, or an implementation that cannot be had here.
    """

    RESUMABLE = ("implementation", "full_precision")
    STAGES: ClassVar[dict[str, str]] = {**BakedField.STAGES, "levels_at": "levels_left"}

    def __init__(
        self,
        num_levels: int = 8,
        features_per_level: int = 2,
        log2_hashmap_size: int = 14,
        base_resolution: int = 4,
        per_level_scale: float | None = None,
        max_resolution: int | None = None,
        hidden_dim: int = 32,
        num_layers: int = 2,
        implementation: Implementation = "auto",
        full_precision: bool = False,
        bake_resolution: int | None = None,
        initial_opacity: float = 0.02,
        initial_brightness: float = 0.27,
        initial_noise: float = 0.1,
        grow_at: list[int | float] | None = None,
        levels_at: list[int | float] | None = None,
    ) -> None:
        levels = None if levels_at is None else _checked_levels(levels_at, num_levels)
        super().__init__(bake_resolution, grow_at, initial_opacity, initial_brightness, levels_at=levels)
        check_arguments(
            hidden_dim=(hidden_dim, 1 <= hidden_dim <= 256, "in [1, 256]"),
            num_layers=(num_layers, 1 <= num_layers <= 8, "in [1, 8]"),
            initial_noise=(initial_noise, 0.0 <= initial_noise < math.inf, "finite and >= 0"),
        )
        require_implementation(implementation)
        scale = _per_level_scale(num_levels, base_resolution, per_level_scale, max_resolution)
        self.hash_levels = HashLevels(num_levels, features_per_level, log2_hashmap_size, base_resolution, scale)
        wide = too_wide(self.hash_levels, hidden_dim, num_layers, full_precision)
        if implementation == "tinycudann" and wide:
            raise ValueError(f"implementation=tinycudann: {wide}; lower one of the two, or use implementation=auto")
        self.implementation, self.full_precision = implementation, full_precision
        self.table = nn.Parameter(scaled_normal(initial_noise, self.hash_levels.entries, features_per_level))
        with torch.no_grad():
            self.table[self.levels_now.entries :] = 0.0  # so that a level that joins changes nothing yet
        sizes = [self.hash_levels.width, *[hidden_dim] * (num_layers - 1), CHANNELS]
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        # He et al. 2015: the spread of the features survives the layers, once all levels are read
        self.weights = nn.ParameterList(scaled_normal(math.sqrt(2.0 / shape[1]), *shape) for shape in shapes)

    def extra_repr(self) -> str:
        """Levels that are read now, their resolutions, and the grid that is baked; what it answers would take long."""
        levels, resolutions = self.levels_now, self.levels_now.resolutions
        still = f" of {self.hash_levels.num_levels}" if levels.num_levels < self.hash_levels.num_levels else ""
        edges = f"of {resolutions[0]} to {resolutions[-1]} corners an edge"
        return f"{levels.num_levels}{still} levels {edges}, bake_resolution={self.bake_resolution}"

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments without the implementation: any implementation can open the volume."""
        arguments = super().init_args
        return {**arguments, "implementation": "auto"} if "implementation" in arguments else arguments

    @property
    def levels_at(self) -> list[int | float]:
        """When finer levels still join. One that does is zero until then, so the field does not change."""
        return self._to_come["levels_at"]

    @property
    def levels_now(self) -> HashLevels:
        """The levels that are read."""
        return _coarsest(self.hash_levels, self.hash_levels.num_levels - len(self.levels_at))

    def numbers_held(self, points: int, device: str) -> int:
        """The encoded features of each."""
        return points * self.hash_levels.width

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """A copy that leaves the GPU, such as the page's, computes by what its new device has."""
        before = self.table.device.type
        moved = super()._apply(fn, recurse)
        if self.implementation == "tinycudann" and before == GPU != self.table.device.type:
            self.implementation = "auto"
        return moved

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The table, with its own epsilon, and the network."""
        return [
            {"params": [self.table], "rate": 1.0, "eps": TABLE_EPS},
            {"params": list(self.weights), "rate": 1.0},
        ]

    def _baked(self, size: int) -> Float[Tensor, "2 N N N"]:
        return baked_in_ball(self, size)

    def raw(self, points: Float[Tensor, "P 3"]) -> Float[Tensor, "P 2"]:
        """What the network answers at world points, without the bias: the part that implementations differ in.

        Gradients:
            To the parameters and to the points; once only, except with implementation=torch.
        """
        table, weights = computed(self.table), [computed(weight) for weight in self.weights]
        implementation = choose_implementation(
            self.implementation, points, table, weights, self.hash_levels, self.full_precision
        )
        if len(points) == 0:
            return points.new_zeros(0, CHANNELS) + 0.0 * (points.sum() + self.table.sum())
        unit = 0.5 * (in_cube(points) + 1.0)
        unit, levels = unit.to(table.dtype), self.levels_now
        if levels.num_levels < self.hash_levels.num_levels:  # a cut costs a second table in backward
            table, weights[0] = table[: levels.entries], weights[0][:, : levels.width]
        return encode_and_evaluate(unit, table, weights, levels, implementation, self.full_precision)


@lru_cache(maxsize=64)
def _coarsest(levels: HashLevels, num_levels: int) -> HashLevels:
    return levels.coarsest(num_levels)


def _per_level_scale(levels: int, base: int, scale: float | None, finest: int | None) -> float:
    if scale is not None and finest is not None:
        raise ValueError(f"max_resolution={finest}: per_level_scale={scale:g} is given too; give only one of the two")
    if scale is not None:
        return scale
    finest = max(64, base) if finest is None else finest
    if not 1 <= base <= finest <= 1024:
        raise ValueError(f"max_resolution={finest}: must be in [{base}, 1024]; base_resolution is {base}")
    return (finest / base) ** (1.0 / max(levels - 1, 1))


def _checked_levels(levels_at: list[int | float] | None, num_levels: int) -> list[int | float]:
    times = checked_times("levels_at", levels_at)
    if len(times) >= num_levels:
        raise ValueError(
            f"levels_at={levels_at}: {len(times)} levels would join, but of num_levels={num_levels} one is there from "
            f"the start; must be at most {num_levels - 1} times, or null"
        )
    return times
