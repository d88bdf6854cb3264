"""One object from images of it whose directions nobody knows: starts, the best of them refined, polished."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Generator, Tensor

from .ab_initio import CLEAR, NOISY, NOISY_BELOW, SIZE, start_from_noise
from .alignment import align
from .fourier import coefficients, half_disc, resized
from .fsc import correlation
from .images import Observed, centre_of_mass, moved_back
from .refinement import MOST_ROUNDS, Refined, Rounds, begin, next_round, polish, refined

TRIED_ON, TRIED_ROUNDS = 1000, 2  # images and rounds of refinement at 16 pixels that each start is tried on
POLISHED_FROM = 0.9  # of Nyquist's shell: a volume whose halves agree less would learn the noise
SHARES = {"start": 0.35, "refine": 0.9, "polish": 1.0}  # of the time, about, at the end of each stage
# What marks a result as doubtful; found by runs made to fail: docs/reconstruction.md.
AGREEMENT = 0.9  # correlation of the coarse volumes of two starts, aligned
EXCESS = 0.04  # share of the images' power that is left unexplained beyond the noise


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
        warnings: in words.
    """

    refined: Refined
    volume: Float[Tensor, "N N N"]
    agreement: list[float]
    left: list[float]
    noise_share: float
    warnings: list[str]


def find_object(
    observed: Observed,
    *,
    seeds: int,
    seed: int = 0,
    max_shift: float = 0.0,
    start: Float[Tensor, "N N N"] | None = None,
    mask: Float[Tensor, "N N N"] | None = None,
    stages: Stages | None = None,
    tell: Callable[[float, str], None] = lambda share, doing: None,
    save: Callable[[Stages], None] = lambda stages: None,
) -> Found:
    """Find the object in the images.

    Args:
        observed: the images.
        seeds: independent starts from noise, of which the best is refined; 1 with a start of one's own.
        seed: of the first; each has its own random numbers, whatever was done before.
        max_shift: how far the object may be off the middle of the images, pixels.
        start: a volume to begin with instead of noise.
        mask: where matter may be, [0, 1].
        stages: what was done before; None: nothing.
        tell: is handed the share that is done and what is done now.
        save: is handed the stages whenever there is more to keep.
    """
    stages = stages or Stages()
    lines, shifted = observed.lines, max_shift > 0.0
    shifts = centre_of_mass(lines).clamp(-max_shift, max_shift) if shifted else lines.new_zeros(len(lines), 2)
    centred = moved_back(lines, shifts) if shifted else lines
    count = 1 if start is not None else seeds
    hidden_by = observed.noise if observed.signal_to_noise < NOISY_BELOW and not shifted else 0.0
    for number in range(len(stages.starts), count):

        def told_start(share: float, number: int = number) -> None:
            tell(SHARES["start"] * (number + share) / count, f"start {number + 1} of {count}")

        volume = resized(start, SIZE, 3).clamp_min(0.0) if start is not None else None
        generator = Generator().manual_seed(seed + number)
        volume, left = _tried(observed, centred, generator, volume, shifted, hidden_by, told_start)
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
            progress = SHARES["start"] + (SHARES["refine"] - SHARES["start"]) * (done + share) / MOST_ROUNDS
            tell(progress, f"refining, {observed.pixel_size * lines.shape[-1] / resolution:.3g} {observed.unit}")

        told_round(0.0)
        stages.rounds = next_round(
            stages.rounds, lines, shifted=shifted, mask=mask, noise=hidden_by, seed=seed, tell=told_round
        )
        save(stages)
    result = refined(stages.rounds)
    volume = result.volume
    if result.resolution >= POLISHED_FROM * (lines.shape[-1] // 2):
        volume = polish(
            volume,
            moved_back(lines, result.poses.shifts) if shifted else lines,
            result.poses.rotations,
            Generator().manual_seed(seed),
            tell=lambda share: tell(SHARES["refine"] + (1.0 - SHARES["refine"]) * share, "polishing"),
        )
        volume = volume if mask is None else volume * mask
    noise_share = _noise_share(observed, result.resolution)
    warnings = _warnings(agreement, result.unexplained, noise_share)
    return Found(result, volume, agreement, stages.left, noise_share, warnings)


def _tried(
    observed: Observed,
    centred: Float[Tensor, "B N N"],
    generator: Generator,
    volume: Float[Tensor, "K K K"] | None,
    shifted: bool,
    hidden_by: float,
    tell: Callable[[float], None],
) -> tuple[Float[Tensor, "K K K"], float]:
    """A coarse volume, refined a little, and the share of the images that it leaves unexplained."""
    if volume is None:
        annealing = NOISY if observed.signal_to_noise < NOISY_BELOW else CLEAR
        volume, _ = start_from_noise(centred, generator, annealing, lambda share: tell(0.8 * share))
    coarse = resized(centred[:TRIED_ON], SIZE, 2)
    state = begin(coarse, volume, coarse.new_zeros(len(coarse), 2))
    for number in range(TRIED_ROUNDS):
        state = next_round(state, coarse, shifted=shifted, noise=hidden_by * SIZE / centred.shape[-1])
        tell(0.8 + 0.2 * (number + 1) / TRIED_ROUNDS)
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


def _warnings(agreement: list[float], unexplained: float, noise_share: float) -> list[str]:
    found = []
    if agreement and min(agreement) < AGREEMENT:
        agreeing = 1 + sum(each >= AGREEMENT for each in agreement)
        found.append(
            f"of {len(agreement) + 1} independent starts only {agreeing} agree (correlation {min(agreement):.2f} at "
            f"worst): the volume may be wrong; give more --seeds or more images"
        )
    if unexplained > noise_share + EXCESS or not math.isfinite(unexplained):
        found.append(
            f"the volume leaves {unexplained:.0%} of the images unexplained, and noise accounts for {noise_share:.0%}: "
            "it may be wrong, the images may show several objects, or --input or --max_shift may be"
        )
    return found
