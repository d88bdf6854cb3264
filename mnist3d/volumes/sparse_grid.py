"""A grid of which only the blocks with matter are there, in a small part of the dense grid's memory."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry.arrays import computed
from ..geometry.grids import WORLD_EXTENT, grid_size
from ..kernels.block_absorption import BLOCK, Blocks, sample_blocks
from ..storage.memory import give_back
from . import _sparse_blocks as structure
from ._sparse_choice import REACH, matter_of, may_stay, worth_keeping
from ._sparse_count import MostBlocks, most_blocks
from ._sparse_values import check_whole_fits, layers_of, raw_of, summed
from .base import Volume
from .growth import checked_growths, checked_times, coarser, still_to_come
from .initial import scaled_normal
from .resampling import undrawn

COARSER = (2, 4)  # voxels along an edge of a block in the levels that are added, as VoxelGrid's at 1/4 and 1/2
MOST_RAW = 16.0  # beyond, softplus and sigmoid are at the ends of what float32 tells apart
STARTING_RAW = 8.0  # of voxels from elsewhere: beyond, sigmoid and softplus pass on no gradient that a step could use
COMING_BACK = 0.1  # attenuation of the voxels of a block that comes back, of the largest that counts as empty
BLOCKS_AT_ONCE = 2**9  # bounds the memory of doubles
GPU_GRID = 2**21  # voxels: a grid of 128^3 is rendered faster whole there, and takes 16 MiB
CHANNELS = 2
Times = Sequence[int | float]


class SparseGrid(Volume):
    """Blocks of 8^3 voxels, only where there is matter.

        raw         = bias + sum over the levels of upsample(level)
        attenuation = softplus(raw[0]) / voxel_step,   voxel_step = 2 / max(resolution);   0 where no block is
        absorbance  = sigmoid(raw[1])

    All blocks in the unit ball are there at the start. At each time of `prune_at` those without matter are left out,
    but for a halo: blocks with matter within 4 voxels stay, or come back, so that gradients reach them and the matter
    can grow. With `keep_at_most` no more than that stay: those with matter that change the views most, and some beside
    them. Matter that is hidden, or black before black, goes first. The view is that of a `VoxelGrid` of these values.
    It is rendered block by block on a CPU, so memory and time of a step are those of the blocks that are there.

    Args:
        resolution: Voxels along each edge, or along (Z, Y, X), 1 to 1024.
        grow_at: When the grid doubles during training: ascending values of progress in (0, 1), or ascending steps >= 1.
            With n values it starts at resolution / 2^n. null: never.
        prune_at: When blocks without matter are left out, and blocks beside matter come back: in the form of grow_at.
            null: never.
        empty_below: Attenuation per world unit up to which a voxel is empty, > 0.
        initial_opacity: Mean opacity of one voxel step at the start, in (0, 1).
        initial_brightness: Mean of 1 - absorbance at the start, in (0, 1).
        initial_noise: Standard deviation of the raw values of the finest level at the start, >= 0.
        blocks: Number of blocks of a saved volume; null: all in the unit ball, with which a run starts.
        keep_at_most: Share of the cube's blocks that a pruning keeps at most, > 0 and <= 1: those that change the views
            most. null: all with matter, or, where there is none, all that are there.

    Raises:
        ValueError: a value outside its range.

    Source:
        Fridovich-Keil et al., "Plenoxels: Radiance fields without neural networks" (2022), section 3 (pruned voxels
        and their neighbours); Museth, "VDB: High-resolution sparse volumes with dynamic topology" (2013), blocks.
    """

    RUNS_OWN: ClassVar[dict[str, str | None]] = {
        "prune_at": "prunes_left",
        "empty_below": None,
        "keep_at_most": None,
        "blocks": None,
    }

    def __init__(
        self,
        resolution: int | list[int] = 64,
        grow_at: list[int | float] | None = None,
        prune_at: list[int | float] | None = None,
        empty_below: float = 0.1,
        initial_opacity: float = 0.02,
        initial_brightness: float = 0.27,
        initial_noise: float = 0.3,
        blocks: int | None = None,
        keep_at_most: float | None = None,
    ) -> None:
        super().__init__()
        self._final = grid_size(resolution)
        for name, value in (("initial_opacity", initial_opacity), ("initial_brightness", initial_brightness)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name}={value}: must be > 0 and < 1")
        if not 0.0 <= initial_noise < math.inf:
            raise ValueError(f"initial_noise={initial_noise}: must be finite and >= 0")
        if not 0.0 < empty_below < math.inf:
            raise ValueError(f"empty_below={empty_below}: must be finite and > 0")
        if keep_at_most is not None and not (isinstance(keep_at_most, int | float) and 0.0 < keep_at_most <= 1.0):
            raise ValueError(f"keep_at_most={keep_at_most!r}: must be > 0 and <= 1, or null")
        self.empty_below, self.keep_at_most = empty_below, keep_at_most
        self._schedules = checked_growths(grow_at, max(self._final)), checked_times("prune_at", prune_at)
        self.growths_left, self.prunes_left = (nn.Buffer(torch.tensor(len(times))) for times in self._schedules)
        self.grow_at, self.prune_at = (list(times) for times in self._schedules)
        self.resolution = self._stage(len(self.grow_at))
        places = structure.blocks_in_ball(self.resolution)
        if blocks is not None and not 1 <= blocks <= len(places):
            ball = f"the unit ball has {len(places)} blocks of 8^3 voxels at {max(self.resolution)} along an edge"
            raise ValueError(f"blocks={blocks}: must be in [1, {len(places)}], or null; {ball}")
        # opacity of a step = 1 - exp(-softplus(raw)) = sigmoid(raw), so the bias is a plain logit.
        bias = [math.log(share / (1.0 - share)) for share in (initial_opacity, 1.0 - initial_brightness)]
        self.bias = nn.Buffer(torch.tensor(bias).reshape(CHANNELS, 1, 1, 1, 1))
        self.empty_absorbance = 1.0 - initial_brightness
        self._take_blocks(places[:blocks])
        self.levels = self._levels()
        with torch.no_grad():
            self.levels[-1].copy_(scaled_normal(initial_noise, *self.levels[-1].shape))

    def _stage(self, growths_left: int) -> tuple[int, int, int]:
        """The resolution with so many growths to come."""
        z, y, x = (coarser(n, growths_left) for n in self._final)
        return z, y, x

    def _levels(self) -> nn.ParameterList:
        """Zeros for the blocks that are there, coarse to fine."""
        return nn.ParameterList(
            self.bias.new_zeros(CHANNELS, len(self.places), edge, edge, edge) for edge in (*COARSER, BLOCK)
        )

    def _take_blocks(self, places: np.ndarray) -> None:
        """Where the blocks lie, as tensors beside the weights."""
        device = self.bias.device
        self.places = nn.Buffer(torch.tensor(places, device=device))
        self.slots = nn.Buffer(
            torch.tensor(structure.slots_of(places, self.resolution), device=device), persistent=False
        )
        faces = structure.faces_of(places, self.resolution)
        self.faces = nn.Buffer(torch.tensor(faces, device=device), persistent=False)

    def most_blocks(self) -> MostBlocks:
        """How many blocks a run of it has at most; without a time to come those that are there."""
        if not any(self._schedules):
            return MostBlocks(len(self.places), 0, 0)
        stages = [self._stage(left) for left in range(len(self._schedules[0]) + 1)]
        return most_blocks(stages, *self._schedules, self.keep_at_most)

    def extra_repr(self) -> str:
        """Resolution, what it will grow to, and how many blocks are there."""
        growing = f", growing to {self._final}" if self.grow_at else ""
        count = len(structure.blocks_in_ball(self.resolution))
        return f"resolution={self.resolution}{growing}, {len(self.places):,} of {count:,} blocks of the ball"

    @property
    def voxel_step(self) -> float:
        """Edge of a voxel along the finest axis, world units."""
        return WORLD_EXTENT / max(self.resolution)

    def raw(self) -> Float[Tensor, "2 N 8 8 8"]:
        """What is trained, of the blocks that are there: all levels together."""
        return summed(computed(self.bias), [computed(level) for level in self.levels], self.faces)

    def blocks(self) -> Blocks | None:
        """What is there; None for a small grid on a GPU, which is rendered faster as a whole."""
        if self.bias.device.type != "cpu" and math.prod(self.resolution) <= GPU_GRID:
            return None
        return self._blocks()

    def _blocks(self) -> Blocks:
        return Blocks(self.raw(), self.voxel_step, self.slots, self.resolution, self.empty_absorbance)

    def _worth_keeping(self, places: np.ndarray) -> np.ndarray:
        blocks = self._blocks()
        return worth_keeping(blocks, places, matter_of(blocks, places, self.empty_below), self.keep_at_most)

    def dense(self) -> Float[Tensor, "2 Z Y X"]:
        """The whole grid, for those who need it; differentiable in the parameters.

        Raises:
            VolumeFileError: it would not fit into the memory.
        """
        check_whole_fits(self.resolution, self.bias)
        return self._blocks().dense()

    def forward(self, points: Float[Tensor, "*P 3"]) -> tuple[Float[Tensor, "*P"], Float[Tensor, "*P"]]:
        """Between the voxels' centres the opacity of a voxel step is interpolated, as the renderer does; beyond them
        the outermost values go on."""
        drawn, empty = self._drawn()
        found = sample_blocks(drawn, self.slots, self.resolution, empty, points.to(drawn.dtype))
        attenuation, absorbance = undrawn(found, self.voxel_step)
        return attenuation.to(points.dtype), absorbance.to(points.dtype)

    def _drawn(self) -> tuple[Float[Tensor, "3 N 8 8 8"], Float[Tensor, "3"]]:
        """`resampling.drawn` of the blocks that are there, and of the others."""
        raw_attenuation, raw_absorbance = self.raw().double()
        depth = F.softplus(raw_attenuation)
        empty = depth.new_tensor([1.0, 0.0, self.empty_absorbance])
        return torch.stack([torch.exp(-depth), depth, torch.sigmoid(raw_absorbance)]), empty

    def grow(self, steps_done: int, progress: float) -> bool:
        """Double the resolution and choose the blocks anew when it is time (`grow_at`, `prune_at`).

        The views stay the same, but for what is less than `empty_below` and what `keep_at_most` costs. All goes into
        the finest level, the coarser ones begin at zero again.
        """
        growths, prunes = (still_to_come(times, steps_done, progress) for times in (self.grow_at, self.prune_at))
        grows, prune = len(growths) < len(self.grow_at), len(prunes) < len(self.prune_at)
        pruned = prune or len(prunes) < len(self._schedules[1])
        if not (grows or prune):
            return False
        before, size, stage = self.places.cpu().numpy(), self.resolution, (growths, prunes)
        with torch.no_grad():
            places = self._worth_keeping(before) if prune else before
            if grows:
                finer = self._stage(len(growths))
                self._reshape(structure.overlapping(places, size, finer), stage)
                places = self.places.cpu().numpy()
                if pruned:
                    places = self._worth_keeping(places)
            if grows or not np.array_equal(places, before):
                self._reshape(places, stage)
                return True
        self._note_times(*stage)
        return False

    def grow_like(self, grown: Volume, steps_done: int, progress: float) -> None:
        """Take the blocks of another, out of the own values."""
        assert isinstance(grown, SparseGrid)
        with torch.no_grad():
            self._reshape(grown.places.cpu().numpy(), (grown.grow_at, grown.prune_at))

    def _reshape(self, places: np.ndarray, stage: tuple[Times, Times]) -> None:
        """Take other blocks, of this resolution or a finer one, with the values that are there now."""
        finer = self._stage(len(stage[0]))
        if finer == self.resolution:
            raw = self.raw()
            now = self.slots.flatten()[torch.from_numpy(places).long().to(self.slots.device)].long()
            new = raw[:, now.clamp_min(0)]
            fresh = self._coming_back().to(new)
            new = torch.where((now < 0)[:, None, None, None], fresh.reshape(CHANNELS, 1, 1, 1, 1), new)
        else:
            new = self._finer(places, finer)
        give_back()
        self._take_stage(*stage, places)
        self.levels[-1].copy_(new.sub_(self.bias))
        del new
        give_back()

    def _finer(self, places: np.ndarray, finer: tuple[int, int, int]) -> Float[Tensor, "2 N 8 8 8"]:
        """Raw values of the blocks of a finer grid, interpolated as the views are."""
        drawn, empty = self._drawn()
        step = WORLD_EXTENT / max(finer)
        new = self.bias.new_empty(CHANNELS, len(places), BLOCK, BLOCK, BLOCK)
        for begin in range(0, len(places), BLOCKS_AT_ONCE):
            some = slice(begin, begin + BLOCKS_AT_ONCE)
            centres = structure.centres_of(places[some], finer).to(drawn.device)
            found = sample_blocks(drawn, self.slots, self.resolution, empty, centres)
            attenuation, absorbance = undrawn(found, self.voxel_step)
            new[:, some] = raw_of(attenuation, absorbance, step, MOST_RAW)
        return new

    def _coming_back(self) -> Float[Tensor, "2"]:
        """Raw values of a voxel of a block that was not there."""
        empty = torch.tensor([COMING_BACK * self.empty_below, self.empty_absorbance], dtype=torch.float64)
        return raw_of(empty[0], empty[1], self.voxel_step, MOST_RAW)

    def _note_times(self, grow_at: Times, prune_at: Times) -> None:
        self.grow_at, self.prune_at = list(grow_at), list(prune_at)
        self._init_args |= {"grow_at": list(grow_at), "prune_at": list(prune_at)}
        self.growths_left.fill_(len(grow_at))
        self.prunes_left.fill_(len(prune_at))

    def _take_stage(self, grow_at: Times, prune_at: Times, places: np.ndarray) -> None:
        """Blocks of zeros, with these times to come; the saved volume is built at that stage."""
        self._note_times(grow_at, prune_at)
        self._init_args["blocks"] = len(places)
        self.resolution = self._stage(len(grow_at))
        wanted = [level.requires_grad for level in self.levels]
        self._take_blocks(places)
        self.levels = self._levels()
        for level, wants_gradient in zip(self.levels, wanted, strict=True):
            level.requires_grad_(wants_gradient)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: Any,
        unexpected_keys: Any,
        error_msgs: list[str],
    ) -> None:
        """A state of a later or earlier stage brings its blocks with it: how a grown run resumes and rewinds."""
        found = [state_dict.get(f"{prefix}{name}") for name in ("growths_left", "prunes_left", "places")]
        given = [value.cpu().long() for value in found if isinstance(value, Tensor)]
        if len(given) == len(found):
            growths, prunes, places = given
            left = {"growths_left": growths, "prunes_left": prunes}
            wrong = structure.wrong_counts(left, tuple(len(times) for times in self._schedules))
            if wrong := wrong or structure.wrong_places(places, self._stage(int(growths))):
                error_msgs.append(wrong)
                return
            grow_at, prune_at = (
                times[len(times) - int(left) :] for times, left in zip(self._schedules, (growths, prunes), strict=True)
            )
            self._go_to(grow_at, prune_at, places.int().numpy())
        before = self.bias.clone()
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if not torch.equal(self.bias, before):  # of a volume with another initial_brightness
            self.empty_absorbance = float(self.bias[1].double().sigmoid())

    def _go_to(self, grow_at: Times, prune_at: Times, places: np.ndarray) -> None:
        """To another stage; where the blocks are the same the parameters stay, as an optimiser may hold them."""
        same = self._stage(len(grow_at)) == self.resolution and np.array_equal(places, self.places.cpu().numpy())
        if same:
            self._note_times(grow_at, prune_at)
        else:
            self._take_stage(grow_at, prune_at, places)

    def take_voxels(self, grid: Float[Tensor, "2 Z Y X"]) -> None:
        """Show what a grid shows, resampled to the resolution, in the blocks with matter and their halo; with
        `keep_at_most` in no more than those.

        No growth is left, as a coarse start would blur it. Raw values end at +-8, where a step's gradient ends.
        """
        grid, size = grid.double().cpu(), self._final
        with torch.no_grad():
            every = structure.blocks_in_ball(size)
            matter = torch.cat([blocks[0] > self.empty_below for blocks in layers_of(grid, size, every)])
            matter &= structure.read_voxels_of(every, size)
            kept = structure.within_reach(matter, every, size, REACH)
            self._take_stage([], self.prune_at, kept if len(kept) else every)
            begin, step = 0, self.voxel_step
            for blocks in layers_of(grid, size, self.places.cpu().numpy()):
                some = slice(begin, begin + blocks.shape[1])
                self.levels[-1][:, some] = raw_of(blocks[0], blocks[1], step, STARTING_RAW).to(self.bias) - self.bias
                begin = some.stop
            if self.keep_at_most is not None:
                here = self.places.cpu().numpy()
                matter = matter[torch.from_numpy(np.isin(every, here))]  # as given: +-8 may be matter too
                self._reshape(worth_keeping(self._blocks(), here, matter, self.keep_at_most), ([], self.prune_at))

    @torch.no_grad()
    def keep_to_bound(self) -> None:
        """Leave out what is more than `keep_at_most`, such as of weights that were taken from elsewhere."""
        places = self.places.cpu().numpy()
        if len(places) > may_stay(self.resolution, self.keep_at_most):
            self._reshape(self._worth_keeping(places), (self.grow_at, self.prune_at))
