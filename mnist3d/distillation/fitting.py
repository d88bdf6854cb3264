"""The fit: what is minimised, at which rate, and what is kept of it."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..geometry.grids import voxel_centres
from ..volumes.base import Volume, grid_shape
from ..volumes.wrappers import GridField
from .source import Source, psnr_of_views

POINTS = 2**14  # of a step, for a field without a grid
VIEWS_OF_GRID, VIEWS_OF_FIELD = 8, 2  # of a step: those of a grid cost little
WEIGHT_OF_POINTS = 10.0
# Tried, as networks need a hundredth of what grids need; the likeliest first, as the time may end before the last.
RATES = (1e-2, 3e-3, 3e-2, 1e-3, 1e-1, 3e-4)
TRIAL_STEPS, JUDGED_STEPS = 30, 10  # of each rate; the last ones decide about it
TRIALS_SHARE = 0.5  # of the time that is left, where it is limited: all rates together, each as long
LAST_RATE = 0.02  # what is left of the rate at the end, as a share
MOST_STAGES = 64  # of a volume that grows; doublings of one voxel reach any resolution before
BETAS = (0.9, 0.99)
LIKE_ENOUGH = 58.9  # dB: what rounding a brightness to 8 bits makes of it, 20 log10(255 sqrt(12))
CHECKS = 25  # how often it is measured whether the fit is the best so far
# Others than are learned from, and than a command measures at the end. On the CPU only the lowest 32 bits of a seed
# count, so that 2^40 would be the 0 that a fit usually has.
CHECKED_VIEWS, CHECK_SEED = 24, 0x9D3A51C7


@dataclass(frozen=True)
class FitOptions:
    """When a fit ends: at the first limit that is reached.

    Args:
        steps: of the optimiser, >= 1; None: no limit.
        seconds: > 0; None: no limit. Not both None.
        psnr: of views, decibels; None: that of rounding to 8 bits.
        seed: of points and rotations.
    """

    steps: int | None = 3000
    seconds: float | None = None
    psnr: float | None = None
    seed: int = 0


class Fitting:
    """Fits a volume to a field, by gradient.

        minimise  mean |view - view of source|^2  +  w mean over points (|o - o_s|^2 + |e - e_s|^2) / 2

    o is the opacity of one step on a ray and e = o (1 - absorbance) the light that it gives back: what views are made
    of, so that a place without matter has no absorbance to agree on. Of a volume with a grid the points are the voxels
    in the unit ball, else random points in it.

    Args:
        volume: is fitted in place. Its own voxels are taken from the source first, where it can take any.
        source: what is fitted to.
        options: when it ends.
        begun: whether its weights are a start already, so that no voxels are taken.
    """

    def __init__(self, volume: Volume, source: Source, options: FitOptions, begun: bool = False) -> None:
        self.volume, self.source, self.options = volume, source, options
        self.steps, self.rate, self.psnr = 0, math.nan, -math.inf
        self.is_fit = begun  # whether the best so far is more than the random weights at the start
        self.only_tried = False  # whether the time was over before the trials of rates were
        self._began = time.monotonic()
        self._wanted: tuple[Tensor, Tensor] | None = None
        if not begun:
            self._begin()
        self._best = copy.deepcopy(volume.state_dict())

    def run(self, tell: Callable[[float, str], None] = lambda share, doing: None) -> None:
        """Fit until a limit is reached. Afterwards, and after an exception too, `keep_best` has the best so far.

        Args:
            tell: is handed the share that is done, and what is done in words.
        """
        self._began = time.monotonic()
        self._check()
        if self._is_enough():
            return
        tell(0.0, "trying learning rates")
        self.rate = self._best_rate()
        if self.only_tried:
            self._check()
            return
        self.volume.train()
        generator = Generator().manual_seed(self.options.seed)
        optimiser = self._adam(self.volume, self.rate)
        due = 1.0 / CHECKS
        with self.source.asked() as answer:
            while (progress := self._progress()) < 1.0:
                factor = LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress))
                for group in optimiser.param_groups:
                    group["lr"] = self.rate * group.get("rate", 1.0) * factor
                self._step(self.volume, optimiser, answer, generator)
                self.steps += 1
                if self._progress() >= due:
                    due = self._progress() + 1.0 / CHECKS
                    self._check()
                    if self._is_enough():
                        break
                tell(self._progress(), f"fitting, PSNR {self.psnr:.1f} dB")
        self._check()

    def keep_best(self) -> None:
        """The volume as its views were most like those of the source."""
        self.volume.load_state_dict(self._best)
        self.volume.eval()

    def _begin(self) -> None:
        """The voxels of the source, or at least the last stage of a volume that grows."""
        grid = self.source.field.dense()
        try:
            if grid is None:
                grown = copy.deepcopy(self.volume)
                _grow(grown)
                grid = self.source.grid(grid_shape(grown) or (self.source.samples,) * 3)
            self.volume.take_voxels(grid)
            self.is_fit = True
        except ValueError:  # no kind that can
            _grow(self.volume)

    def _progress(self) -> float:
        seconds, steps = self.options.seconds, self.options.steps
        shares = [] if seconds is None else [(time.monotonic() - self._began) / seconds]
        return min(max([*shares, *([] if steps is None else [self.steps / steps])]), 1.0)

    def _is_enough(self) -> bool:
        return self.psnr >= (LIKE_ENOUGH if self.options.psnr is None else self.options.psnr)

    def _check(self) -> None:
        self.volume.eval()
        psnr, _ = psnr_of_views(self.source, self.volume, CHECKED_VIEWS, CHECK_SEED)
        self.volume.train()
        if psnr > self.psnr:
            self._best, self.psnr = copy.deepcopy(self.volume.state_dict()), psnr
            self.is_fit = self.is_fit or self.steps > 0

    def _best_rate(self) -> float:
        """Of `RATES`, with which the loss is lowest after a few steps.

        Where the time ends before the trials, the volume becomes the best of them.
        """
        losses: dict[float, list[float]] = {}
        lowest, best = math.inf, None
        with self.source.asked() as answer:
            self.source.views(1, Generator().manual_seed(self.options.seed))  # what it makes once is no rate's time
            begin = time.monotonic()
            for number, rate in enumerate(RATES, 1):
                end = self._end_of_trial(begin, number / len(RATES))
                volume = copy.deepcopy(self.volume).train()
                optimiser, generator = self._adam(volume, rate), Generator().manual_seed(self.options.seed)
                while len(losses.get(rate, [])) < TRIAL_STEPS and time.monotonic() < end:
                    losses.setdefault(rate, []).append(self._step(volume, optimiser, answer, generator))
                if self.options.seconds is not None and rate in losses and losses[rate][-1] < lowest:
                    lowest, best = losses[rate][-1], (volume.state_dict(), len(losses[rate]))
        self.only_tried = self._progress() >= 1.0
        if self.only_tried and best is not None:
            self.volume.load_state_dict(best[0])
            self.steps = best[1]
        alike = min((len(each) for each in losses.values()), default=0)  # steps that all of them made
        means = {rate: sum(each[:alike][-JUDGED_STEPS:]) for rate, each in losses.items()}
        return min(means, key=lambda rate: means[rate] if math.isfinite(means[rate]) else math.inf, default=RATES[0])

    def _end_of_trial(self, begin: float, share: float) -> float:
        """When the trials of this share of the rates must be over, as of `time.monotonic`."""
        if self.options.seconds is None:
            return math.inf
        return begin + TRIALS_SHARE * share * (self._began + self.options.seconds - begin)

    def _adam(self, volume: Volume, rate: float) -> torch.optim.Adam:
        groups = [{**group, "lr": rate * group.get("rate", 1.0)} for group in volume.parameter_groups()]
        return torch.optim.Adam(groups, betas=BETAS)

    def _step(
        self,
        volume: Volume,
        optimiser: torch.optim.Optimizer,
        answer: Callable[[Tensor], tuple[Tensor, Tensor]],
        generator: Generator,
    ) -> float:
        optimiser.zero_grad(set_to_none=True)
        blocks = volume.blocks() is not None
        grid = None if blocks else volume.dense()
        if grid is None:
            points = _in_ball(POINTS, generator).to(volume.like())
            with torch.no_grad():
                wanted = self._of_step(*answer(points.to(self.source.field.like())))
            unlike = (self._of_step(*volume(points)) - wanted.to(points)).square().mean()
        else:
            unlike = self._unlike_grid(grid)
        count = VIEWS_OF_FIELD if grid is None and not blocks else VIEWS_OF_GRID
        rotations, wanted = self.source.views(count, generator)
        views = self.source.learned(volume if grid is None else GridField(grid), rotations)[:, 0]
        loss = (views - wanted.to(views)).square().mean() + WEIGHT_OF_POINTS * unlike
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    def _of_step(self, attenuation: Float[Tensor, "..."], absorbance: Float[Tensor, "..."]) -> Float[Tensor, "2 ..."]:
        """What one step intercepts, and what it gives back."""
        opacity = -torch.expm1(-attenuation * self.source.step)
        return torch.stack([opacity, opacity * (1.0 - absorbance)])

    def _unlike_grid(self, grid: Float[Tensor, "2 Z Y X"]) -> Float[Tensor, ""]:
        if self._wanted is None:
            z, y, x = (voxel_centres(n) for n in grid.shape[1:])
            distance = (z[:, None, None].square() + y[:, None].square() + x.square()).sqrt()
            inside = distance < 1.0 + math.hypot(*(1.0 / n for n in grid.shape[1:]))
            self._wanted = self._of_step(*self.source.grid(tuple(grid.shape[1:]))).to(grid.detach()), inside.to(grid)
        wanted, inside = self._wanted
        return ((self._of_step(*grid) - wanted).square() * inside).sum() / (2.0 * inside.sum())


def _grow(volume: Volume) -> None:
    """To the last stage."""
    for _ in range(MOST_STAGES):
        if not volume.grow(2**53, 1.0):
            return


def _in_ball(count: int, generator: Generator) -> Float[Tensor, "P 3"]:
    """Uniform in the unit ball."""
    points = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return points * torch.rand(count, 1, generator=generator) ** (1.0 / 3.0)
