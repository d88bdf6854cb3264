"""From a coarse volume to a fine one: poses and volume in turn, in two halves of the images, then a polish."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from .fourier import filtered, insert, low_pass, resized, solve
from .fsc import HALF_MAPS, crossing, shell_correlation
from .pose_draws import draw
from .pose_search import SEARCH_SHELL, Poses, better_of, refine, search
from .projection import line_integrals

FIRST_SHELL = 4  # of a volume that is not refined yet
FIRST_SPACING, SPACING = math.radians(10.0), math.radians(7.5)  # of the grid, at first and then
SEARCHES, MOST_ROUNDS = 3, 8  # rounds in which all rotations are tried, and all rounds
STANDS_STILL = 0.003  # change of the unexplained share, relative, at which a round was the last
DRAWS, DRAWN_SPACING, DRAWN_SHELL = 3, math.radians(10.0), 10  # where noise hides the poses
BETWEEN, AFTER = 1, 2  # steps of Gauss-Newton on each candidate, and on the best
FADE = 1.0  # shells beyond the resolution that are kept
POLISH_EPOCHS, POLISH_BATCH, POLISH_RATE = 2, 50, 0.1
POLISH_STEPS = 160  # at least: of few images there are more epochs
AVERAGED_FROM = 0.6  # of a polish


@dataclass(frozen=True)
class Refined:
    """A volume and how it was seen.

    Args:
        volume: attenuation per world unit, >= 0, empty outside the mask.
        halves: of the even and of the odd images alone; not filtered, not masked, of any sign.
        poses: of all images.
        curve: the half-maps' FSC from shell 1, inside the mask.
    """

    volume: Float[Tensor, "N N N"]
    halves: Float[Tensor, "2 N N N"]
    poses: Poses
    curve: Float[Tensor, " S"]

    @property
    def resolution(self) -> float:
        """Shell up to which the half-maps agree."""
        return crossing(self.curve, HALF_MAPS)

    @property
    def unexplained(self) -> float:
        """Mean share of an image's power that its view leaves."""
        return float(self.poses.unexplained.mean())


@dataclass(frozen=True)
class Rounds:
    """How far a refinement is: all that going on with it needs.

    Args:
        done: rounds so far.
        volumes: of the even and of the odd images, filtered; only what the mask lets through.
        raw: the same, not filtered, not masked.
        poses: of all images.
        curve: the half-maps' FSC, inside the mask.
        resolution: shell.
        before: unexplained share after the last round.
        still: whether nothing more would change.
    """

    done: int
    volumes: Float[Tensor, "2 N N N"]
    raw: Float[Tensor, "2 N N N"]
    poses: Poses
    curve: Float[Tensor, " S"]
    resolution: float = float(FIRST_SHELL)
    before: float = math.inf
    still: bool = False


def begin(images: Float[Tensor, "B N N"], start: Float[Tensor, "K K K"], shifts: Float[Tensor, "B 2"]) -> Rounds:
    """Before the first round: both halves begin with the start, low-passed; poses are not known yet.

    Args:
        images: line integrals, dimensionless.
        start: attenuation per world unit.
        shifts: what the images are taken to be shifted by, pixels.
    """
    size, count = images.shape[-1], len(images)
    first = low_pass(resized(start, size, 3), FIRST_SHELL).clamp_min(0.0)
    unknown = Poses(torch.eye(3).repeat(count, 1, 1), shifts.clone(), torch.full((count,), math.inf))
    return Rounds(0, torch.stack([first, first]), torch.stack([first, first]), unknown, torch.ones(size // 2))


def next_round(
    state: Rounds,
    images: Float[Tensor, "B N N"],
    *,
    max_shift: float = 0.0,
    mask: Float[Tensor, "N N N"] | None = None,
    noise: float = 0.0,
    seed: int = 0,
    tell: Callable[[float], None] = lambda share: None,
) -> Rounds:
    """Search poses, refine them, solve for the volume: once.

    Even and odd images never see each other's volume but the start; how far the two agree says how fine a detail is
    believed.

    Args:
        state: before.
        images: line integrals, dimensionless.
        max_shift: how far the object may be off the middle of the images, pixels; 0: it is in the middle.
        mask: where matter may be, [0, 1]; None: in the ball.
        noise: standard deviation of a pixel where it hides the poses, which are drawn then; else 0.
        seed: of the draws of all rounds.
        tell: is handed the share of the round that is done.
    """
    shell = compared_shell(state.resolution, images.shape[-1])
    halves = [torch.arange(half, len(images), 2) for half in (0, 1)]
    poses: list[Poses] = []
    solved: list[Tensor] = []
    generator = Generator().manual_seed(seed + state.done)
    for half, chosen in enumerate(halves):
        volume, its = state.volumes[half], images[chosen]
        if noise > 0.0:
            last = state.done + 1 >= MOST_ROUNDS
            before = state.poses.at(chosen).shifts
            found, new = _drawn(volume, its, before, noise, min(shell, DRAWN_SHELL), generator, last, max_shift)
        else:
            new = _posed(volume, its, state.poses.at(chosen), state.done, shell, max_shift > 0.0)
            found = insert(its, new.rotations, new.shifts if bool(new.shifts.any()) else None)
        poses.append(new)
        solved.append(solve(found))
        tell(0.5 * (half + 1))
    raw = torch.stack(solved)
    inside = raw if mask is None else raw * mask
    curve = shell_correlation(inside[0], inside[1])
    resolution = crossing(curve, HALF_MAPS)
    if state.done == 0:
        resolution = max(resolution, float(FIRST_SHELL))
    gains = _kept(curve, resolution)
    volumes = torch.stack([filtered(each, gains).clamp_min(0.0) for each in inside])
    joined = _joined(halves, poses)
    now = float(joined.unexplained.mean())
    still = noise == 0.0 and state.done >= SEARCHES and abs(state.before - now) < STANDS_STILL * state.before
    return Rounds(state.done + 1, volumes, raw, joined, curve, resolution, now, still or state.done + 1 >= MOST_ROUNDS)


def compared_shell(resolution: float, size: int) -> int:
    """Up to which shell images of `size` pixels and views of a volume of this resolution are compared."""
    return min(max(int(resolution), 3), size // 2 - 1)


def refined(state: Rounds, mask: Float[Tensor, "N N N"] | None = None) -> Refined:
    """The volume of all images, after the last round; the mask as of `next_round`."""
    curve = state.curve.clamp_min(0.0)
    gains = _kept(2.0 * curve / (1.0 + curve), state.resolution)
    mean = 0.5 * (state.raw[0] + state.raw[1])
    volume = filtered(mean if mask is None else mean * mask, gains).clamp_min(0.0)
    volume = volume if mask is None else volume * mask  # the filter spreads it beyond the mask
    return Refined(volume, state.raw, state.poses, state.curve)


def _posed(volume: Tensor, images: Tensor, poses: Poses, round_: int, shell: int, shifted: bool) -> Poses:
    """Poses after a round."""
    if round_ < SEARCHES:
        found = search(
            volume,
            images,
            poses.shifts,
            spacing=FIRST_SPACING if round_ == 0 else SPACING,
            shell=min(shell, SEARCH_SHELL),
            normalised=round_ == 0,
        )
        known = round_ > 0
        best = refine(volume, images, poses, shell=shell, iterations=BETWEEN, shifted=shifted) if known else None
        for rotations in found:
            tried = Poses(rotations, poses.shifts, poses.unexplained)
            tried = refine(volume, images, tried, shell=shell, iterations=BETWEEN, shifted=shifted)
            best = tried if best is None else better_of(best, tried)
        assert best is not None
        poses = best
    return refine(volume, images, poses, shell=shell, iterations=AFTER, shifted=shifted)


def _drawn(
    volume: Tensor,
    images: Tensor,
    shifts: Tensor,
    noise: float,
    shell: int,
    generator: Generator,
    last: bool,
    max_shift: float,
) -> tuple[Float[Tensor, "3 M M M"], Poses]:
    """Slices of the images at drawn poses, and the likeliest poses; after the last round these are made exact."""
    found = draw(
        volume,
        images,
        shifts,
        noise,
        spacing=DRAWN_SPACING,
        shell=shell,
        draws=DRAWS,
        generator=generator,
        max_shift=max_shift,
    )
    sums = torch.stack([insert(images, *each) for each in zip(found.rotations, found.shifts, strict=True)]).sum(0)
    if not last:
        return sums, found.poses
    return sums, refine(volume, images, found.poses, shell=shell, iterations=AFTER, shifted=max_shift > 0.0)


def _kept(curve: Float[Tensor, " S"], resolution: float) -> Float[Tensor, " G"]:
    """What is kept of each shell, from shell 0: as much as the halves agree (Wiener), nothing beyond the resolution."""
    shell = torch.arange(len(curve) + 1)
    gains = torch.cat([curve.new_ones(1), curve.clamp_min(0.0)])
    return torch.where(shell <= resolution + FADE, gains, torch.zeros_like(gains)).float()


def _joined(halves: list[Tensor], poses: list[Poses]) -> Poses:
    order = torch.cat(halves).argsort()
    return Poses(*(torch.cat([getattr(its, name) for its in poses])[order] for name in vars(poses[0])))


def polish(
    volume: Float[Tensor, "N N N"],
    images: Float[Tensor, "B N N"],
    rotations: Float[Tensor, "B 3 3"],
    generator: Generator,
    tell: Callable[[float], None] = lambda share: None,
) -> Float[Tensor, "N N N"]:
    """The volume moved by gradient through the renderer, so that its views are the images; poses stay.

    Args:
        volume: where to begin, attenuation per world unit, >= 0; its thickest ray about `known_views.DEPTH` deep, as
            the rate is of optical depths of that order.
        images: line integrals, not shifted.
        rotations: of each.
        generator: of the order of the images.
        tell: is handed the share that is done.
    """
    step = 2.0 / len(volume)
    depth = (volume * step).clamp(1e-3, 20.0)
    raw = (depth + torch.log(-torch.expm1(-depth))).requires_grad_()
    optimiser = torch.optim.Adam([raw], lr=POLISH_RATE, betas=(0.9, 0.99))
    a_time = -(-len(images) // POLISH_BATCH)
    batches = [
        part
        for _ in range(max(POLISH_EPOCHS, -(-POLISH_STEPS // a_time)))
        for part in torch.randperm(len(images), generator=generator).split(POLISH_BATCH)
    ]
    total, count = torch.zeros_like(volume), 0
    for number, part in enumerate(batches):
        progress = number / len(batches)
        optimiser.param_groups[0]["lr"] = POLISH_RATE * (0.5 + 0.5 * math.cos(math.pi * progress) + 0.02)
        view = line_integrals(F.softplus(raw) / step, rotations[part], images.shape[-1])
        loss = (view - images[part]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if progress >= AVERAGED_FROM:
            total += F.softplus(raw.detach()) / step
            count += 1
        tell((number + 1) / len(batches))
    return total / count
