"""One object from images of it whose directions nobody knows: starts, the best of them refined, polished."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Generator, Tensor

from .ab_initio import CLEAR, NOISY, NOISY_BELOW, SIZE, start_from_noise
from .alignment import align
from .fourier import coefficients, half_disc, resized, slices, volume_transform
from .fsc import correlation
from .gan_start import start_by_gan
from .images import Observed, likely_shifts, moved_back
from .judging import EXCESS, LEAST, coverage, noise_share_of, unexplained_by, warnings_of
from .known_views import depth_factor
from .refinement import (
    FIRST_SHELL,
    MOST_ROUNDS,
    Refined,
    Rounds,
    begin,
    next_round,
    polish,
    refined,
)
from .so3 import rotation_grid

STARTED = 0.8  # of the time of a start, about, before it is tried
TRIED_ON, TRIED_ROUNDS = 1000, 2  # images and rounds of refinement at 16 pixels that each start is tried on
GAN_ROUNDS = 8  # likewise of a start by a discriminator, which knows less of the poses
POLISHED_FROM = 0.9  # of Nyquist's shell: a volume whose halves agree less would learn the noise
STARTS, GAN_STARTS, REFINES = 0.35, 0.8, 0.95  # of the time, about, at the end of each stage


@dataclass
class Stages:
    """What is done so far: all that going on needs. Its volumes are of images scaled by `known_views.depth_factor`.

    Args:
        starts: coarse volumes.
        left: the share that each leaves unexplained, at 16 pixels.
        rounds: of the refinement of the best; None: not begun.
    """

    starts: list[Float[Tensor, "K K K"]] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    rounds: Rounds | None = None


@dataclass(frozen=True)
class Found:
    """A reconstruction and what is known of how good it is.

    Args:
        refined: volume before the polish, half-maps and FSC; poses, and what the polished volume leaves unexplained.
        volume: attenuation per world unit.
        agreement: correlation of each start's coarse volume with the best one's, aligned, mirror images taken for the
            same.
        left: the share that each start leaves unexplained, at 16 pixels.
        noise_share: share of the images' power that noise accounts for, up to the resolution; NaN where the images do
            not tell.
        coverage: share of the shell of the resolution that the images' slices cover, [0, 1].
        warnings: in words.
    """

    refined: Refined
    volume: Float[Tensor, "N N N"]
    agreement: list[float]
    left: list[float]
    noise_share: float
    coverage: float
    warnings: list[str]


def find_object(
    observed: Observed,
    *,
    seeds: int,
    seed: int = 0,
    max_shift: float = 0.0,
    start: Float[Tensor, "N N N"] | None = None,
    by_gan: bool = False,
    mask: Float[Tensor, "N N N"] | None = None,
    polishes: bool = True,
    stages: Stages | None = None,
    tell: Callable[[float, str], None] = lambda share, doing: None,
    save: Callable[[Stages], None] = lambda stages: None,
) -> Found:
    """Find the object in the images.

    The scale of the line integrals means nothing: images times x give the volume times x.

    Args:
        observed: the images.
        seeds: independent starts, of which the best is refined; 1 with a start of one's own.
        seed: of the first; each has its own random numbers, whatever was done before.
        max_shift: how far the object may be off the middle of the images, pixels.
        start: a volume to begin with instead of noise, of any scale.
        by_gan: whether a discriminator teaches the starts, and not expectation maximisation.
        mask: where matter may be, [0, 1].
        polishes: whether the volume is polished at the end; not where another one is fitted then.
        stages: what was done before; None: nothing.
        tell: is handed the share that is done and what is done now.
        save: is handed the stages whenever there is more to keep.
    """
    stages = stages or Stages()
    factor = depth_factor(observed.lines)
    observed = replace(observed, lines=observed.lines * factor, noise=observed.noise * factor)
    lines = observed.lines
    max_shift = min(max_shift, 0.5 * lines.shape[-1])  # a shift of a whole image is none
    shifted = max_shift > 0.0
    start = None if start is None else _as_strong_as(observed, start)
    noisy = observed.signal_to_noise < NOISY_BELOW
    shifts = lines.new_zeros(len(lines), 2)
    if shifted and (
        by_gan or not noisy
    ):  # where they are drawn, noise in the middle of its mass would begin each chain
        shifts = likely_shifts(lines, observed.noise, max_shift)
    centred = moved_back(lines, shifts) if shifted else lines
    count = 1 if start is not None else seeds
    starts = GAN_STARTS if by_gan else STARTS
    hidden_by = observed.white_noise if noisy else 0.0
    for number in range(len(stages.starts), count):

        def told_start(share: float, number: int = number) -> None:
            tell(starts * (number + share) / count, f"start {number + 1} of {count}")

        if start is not None:
            volume = resized(start, SIZE, 3).clamp_min(0.0)
        elif by_gan:
            volume = start_by_gan(
                centred,
                seed + number,
                observed.noise,
                observed.filled < 1.0,
                lambda share: told_start(STARTED * share),
            )
        else:
            volume, _ = start_from_noise(
                centred,
                Generator().manual_seed(seed + number),
                NOISY if noisy else CLEAR,
                lambda share: told_start(STARTED * share),
                max_shift if noisy else 0.0,
            )
        rounds = GAN_ROUNDS if by_gan and start is None else TRIED_ROUNDS
        volume, left = _tried(centred, volume, rounds, max_shift, hidden_by, told_start)
        stages.starts.append(volume)
        stages.left.append(left)
        save(stages)
    best = min(range(len(stages.left)), key=lambda number: stages.left[number])
    others = [volume for number, volume in enumerate(stages.starts) if number != best]
    agreement = [_agreement(volume, stages.starts[best]) for volume in others]
    stages.rounds = stages.rounds or begin(lines, start if start is not None else stages.starts[best], shifts)
    while not stages.rounds.still:
        done, resolution = stages.rounds.done, stages.rounds.resolution

        def told_round(share: float, done: int = done, resolution: float = resolution) -> None:
            progress = starts + (REFINES - starts) * (done + share) / MOST_ROUNDS
            finest = observed.pixel_size * lines.shape[-1] / max(resolution, 1.0)  # 0: not even the first shell agrees
            tell(progress, f"refining, {finest:.3g} {observed.unit}")

        told_round(0.0)
        stages.rounds = next_round(
            stages.rounds, lines, max_shift=max_shift, mask=mask, noise=hidden_by, seed=seed, tell=told_round
        )
        save(stages)
    result = refined(stages.rounds, mask)
    volume, size, resolution = result.volume, lines.shape[-1], result.resolution
    if polishes and resolution >= POLISHED_FROM * (size // 2):
        volume = polish(
            volume,
            moved_back(lines, result.poses.shifts) if shifted else lines,
            result.poses.rotations,
            Generator().manual_seed(seed),
            tell=lambda share: tell(REFINES + (1.0 - REFINES) * share, "polishing"),
        )
        volume = volume if mask is None else volume * mask
    # Of the volume that is handed back: the rounds compared the images with the halves before.
    left = replace(result.poses, unexplained=unexplained_by(volume, lines, result.poses, resolution))
    noise_share = noise_share_of(observed, resolution) if observed.noise_known else math.nan
    covered = coverage(left.rotations, resolution)
    warnings = warnings_of(agreement, float(left.unexplained.mean()), noise_share, covered, len(lines), resolution)
    result = Refined(result.volume / factor, result.halves / factor, left, result.curve)
    return Found(result, volume / factor, agreement, stages.left, noise_share, covered, warnings)


def _tried(
    centred: Float[Tensor, "B N N"],
    volume: Float[Tensor, "K K K"],
    rounds: int,
    max_shift: float,
    hidden_by: float,
    tell: Callable[[float], None],
) -> tuple[Float[Tensor, "K K K"], float]:
    """A coarse volume, refined a little, and the share of the images that it leaves unexplained."""
    coarse = resized(centred[:TRIED_ON], SIZE, 2)
    state, scale = begin(coarse, volume, coarse.new_zeros(len(coarse), 2)), SIZE / centred.shape[-1]
    for number in range(rounds):
        state = next_round(state, coarse, max_shift=max_shift * scale, noise=hidden_by * scale)
        tell(STARTED + (1.0 - STARTED) * (number + 1) / rounds)
    return refined(state).volume, state.before


def _agreement(volume: Float[Tensor, "K K K"], best: Float[Tensor, "K K K"]) -> float:
    found = align(volume, best)
    return correlation(found.apply(volume), best)


def _as_strong_as(observed: Observed, start: Float[Tensor, "N N N"]) -> Float[Tensor, "N N N"]:
    """A volume multiplied so that its coarse views have the power of the images, without their noise, in the mean."""
    frequencies, size = half_disc(FIRST_SHELL), observed.lines.shape[-1]
    start = start / start.abs().max().clamp_min(LEAST)
    views = slices(volume_transform(resized(start, SIZE, 3)), rotation_grid(1.0).flatten(0, 1), frequencies)
    images = coefficients(resized(observed.lines[:TRIED_ON], SIZE, 2), frequencies)
    power, wanted = (float(each.square().sum((1, 2)).mean()) for each in (views, images))
    noise = (observed.white_noise * SIZE / size) ** 2 * SIZE**2 * len(frequencies)
    return start * math.sqrt(max(wanted - noise, EXCESS * wanted) / max(power, LEAST))
