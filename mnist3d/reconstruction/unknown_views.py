"""One object from images of it whose directions nobody knows: starts, the best of them refined, polished."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from .ab_initio import CLEAR, NOISY, NOISY_BELOW, SIZE, start_from_noise
from .alignment import align
from .fourier import coefficients, half_disc, resized
from .fsc import correlation
from .gan_start import start_by_gan
from .images import Observed, centre_of_mass, moved_back
from .refinement import MOST_ROUNDS, Refined, Rounds, begin, next_round, polish, refined
from .so3 import rotation_grid

STARTED = 0.8  # of the time of a start, about, before it is tried
TRIED_ON, TRIED_ROUNDS = 1000, 2  # images and rounds of refinement at 16 pixels that each start is tried on
POLISHED_FROM = 0.9  # of Nyquist's shell: a volume whose halves agree less would learn the noise
STARTS, GAN_STARTS, REFINES = 0.35, 0.8, 0.95  # of the time, about, at the end of each stage
# What marks a result as doubtful; found by runs made to fail: docs/reconstruction.md.
AGREEMENT = 0.9  # correlation of the coarse volumes of two starts, aligned
SUPPORT = 1.0 / 3.0  # share of the other starts, at least, that must agree with the best: chance does not repeat itself
EXCESS = 0.04  # share of the images' power that is left unexplained beyond the noise
COVERED = 0.8  # share of the finest shell that is believed which the images' slices cover, at least
PLACES = 2000  # at which that is measured


@dataclass
class Stages:
    """What is done so far: all that going on needs.

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
        refined: volume, half-maps, poses and FSC, before the polish.
        volume: attenuation per world unit.
        agreement: correlation of each start's coarse volume with the best one's, aligned, mirror images taken for the
            same.
        left: the share that each start leaves unexplained, at 16 pixels.
        noise_share: share of the images' power that noise accounts for, up to the resolution.
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

    Args:
        observed: the images.
        seeds: independent starts, of which the best is refined; 1 with a start of one's own.
        seed: of the first; each has its own random numbers, whatever was done before.
        max_shift: how far the object may be off the middle of the images, pixels.
        start: a volume to begin with instead of noise.
        by_gan: whether a discriminator teaches the starts, and not expectation maximisation.
        mask: where matter may be, [0, 1].
        polishes: whether the volume is polished at the end; not where another one is fitted then.
        stages: what was done before; None: nothing.
        tell: is handed the share that is done and what is done now.
        save: is handed the stages whenever there is more to keep.
    """
    stages = stages or Stages()
    lines, shifted = observed.lines, max_shift > 0.0
    shifts = centre_of_mass(lines).clamp(-max_shift, max_shift) if shifted else lines.new_zeros(len(lines), 2)
    centred = moved_back(lines, shifts) if shifted else lines
    count = 1 if start is not None else seeds
    starts = GAN_STARTS if by_gan else STARTS
    hidden_by = observed.noise if observed.signal_to_noise < NOISY_BELOW and not shifted else 0.0
    for number in range(len(stages.starts), count):

        def told_start(share: float, number: int = number) -> None:
            tell(starts * (number + share) / count, f"start {number + 1} of {count}")

        if start is not None:
            volume = resized(start, SIZE, 3).clamp_min(0.0)
        elif by_gan:
            volume = start_by_gan(centred, seed + number, tell=lambda share: told_start(STARTED * share))
        else:
            annealing = NOISY if observed.signal_to_noise < NOISY_BELOW else CLEAR
            generator = Generator().manual_seed(seed + number)
            volume, _ = start_from_noise(centred, generator, annealing, lambda share: told_start(STARTED * share))
        volume, left = _tried(observed, centred, volume, shifted, hidden_by, told_start)
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
            tell(progress, f"refining, {observed.pixel_size * lines.shape[-1] / resolution:.3g} {observed.unit}")

        told_round(0.0)
        stages.rounds = next_round(
            stages.rounds, lines, shifted=shifted, mask=mask, noise=hidden_by, seed=seed, tell=told_round
        )
        save(stages)
    result = refined(stages.rounds)
    volume = result.volume
    if polishes and result.resolution >= POLISHED_FROM * (lines.shape[-1] // 2):
        volume = polish(
            volume,
            moved_back(lines, result.poses.shifts) if shifted else lines,
            result.poses.rotations,
            Generator().manual_seed(seed),
            tell=lambda share: tell(REFINES + (1.0 - REFINES) * share, "polishing"),
        )
        volume = volume if mask is None else volume * mask
    noise_share = _noise_share(observed, result.resolution)
    covered = coverage(result.poses.rotations, result.resolution)
    warnings = _warnings(agreement, result.unexplained, noise_share, covered, len(lines))
    return Found(result, volume, agreement, stages.left, noise_share, covered, warnings)


def _tried(
    observed: Observed,
    centred: Float[Tensor, "B N N"],
    volume: Float[Tensor, "K K K"],
    shifted: bool,
    hidden_by: float,
    tell: Callable[[float], None],
) -> tuple[Float[Tensor, "K K K"], float]:
    """A coarse volume, refined a little, and the share of the images that it leaves unexplained."""
    coarse = resized(centred[:TRIED_ON], SIZE, 2)
    state = begin(coarse, volume, coarse.new_zeros(len(coarse), 2))
    for number in range(TRIED_ROUNDS):
        state = next_round(state, coarse, shifted=shifted, noise=hidden_by * SIZE / centred.shape[-1])
        tell(STARTED + (1.0 - STARTED) * (number + 1) / TRIED_ROUNDS)
    return refined(state).volume, state.before


def _agreement(volume: Float[Tensor, "K K K"], best: Float[Tensor, "K K K"]) -> float:
    found = align(volume, best)
    return correlation(found.apply(volume), best)


def _noise_share(observed: Observed, resolution: float) -> float:
    """What white noise of the strength at the border adds to the images' power up to a shell, as a share of it."""
    size = observed.lines.shape[-1]
    frequencies = half_disc(min(max(int(resolution), 3), size // 2 - 1))
    power = coefficients(observed.lines, frequencies).square().sum((1, 2))
    noise = observed.noise**2 * size**2 * len(frequencies)
    return float((noise / power.clamp_min(1e-30)).mean().clamp(max=1.0))


def coverage(rotations: Float[Tensor, "B 3 3"], shell: float) -> float:
    """Share of a shell in Fourier space that lies within half a frequency of a view's slice.

    Args:
        rotations: of the views.
        shell: cycles over the world's width.

    Source:
        Crowther, DeRosier, Klug, "The reconstruction of a three-dimensional structure from projections and its
        application to electron microscopy" (1970), whose count is for tilts about one axis.
    """
    places = rotation_grid(math.sqrt(4.0 * math.pi / PLACES))[:, 0, 2]
    near = torch.zeros(len(places), dtype=torch.bool)
    for part in rotations[:, 2].split(PLACES):
        near |= ((places @ part.T).abs() * shell <= 0.5).any(1)
    return float(near.float().mean())


def _warnings(
    agreement: list[float], unexplained: float, noise_share: float, covered: float = 1.0, count: int = 0
) -> list[str]:
    found = []
    agreeing = sum(each >= AGREEMENT for each in agreement)
    if agreement and agreeing < SUPPORT * len(agreement):
        found.append(
            f"of {len(agreement) + 1} independent starts only {1 + agreeing} agree (correlation {max(agreement):.2f} "
            "at best): the volume may be wrong; give more --seeds or more images"
        )
    if unexplained > noise_share + EXCESS or not math.isfinite(unexplained):
        found.append(
            f"the volume leaves {unexplained:.0%} of the images unexplained, and noise accounts for {noise_share:.0%}: "
            "it may be wrong, the images may show several objects, or --input or --max_shift may be"
        )
    if covered < COVERED:
        found.append(
            f"the {count:,} images cover {covered:.0%} of the finest detail that is kept: between them it is guessed; "
            "give more images, or images from other directions"
        )
    return found
