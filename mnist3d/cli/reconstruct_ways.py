"""The two ways to an object: from images whose directions nobody knows, and from known ones."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..errors import DataError
from ..formats.picking import split_pick
from ..formats.reading import READERS
from ..reconstruction.fourier import resized, soft_ball
from ..reconstruction.images import Observed, moved_back
from ..reconstruction.judging import EXCESS, LEAST, unexplained_by
from ..reconstruction.known_views import Fitted, absorb_nothing, depth_factor, fit_known
from ..reconstruction.pose_search import Poses
from ..reconstruction.poses import read_poses
from ..reconstruction.projection import line_integrals
from ..reconstruction.state_file import STATE_FILE, fingerprint, read_state, state_bytes
from ..reconstruction.unknown_views import POLISHED_FROM, Found, Stages, find_object
from ..runs.building import build_volume
from ..runs.config import Config
from ..runs.memory import check_fit
from ..storage.run_directory import RunDirectory
from ..volumes.base import Volume, class_path
from ..volumes.voxel_grid import VoxelGrid
from .any_volume import any_volume
from .reconstruct_files import Result
from .reconstruct_watch import Watch

EM, GAN = "em", "gan"  # ways to start, beside a volume
BATCH = 16  # images a step of a volume that is fitted by gradient
VIEWS_AT_ONCE = 100
LAST_STAGE = 0.7  # of the time, about, when `--volume` begins to be fitted to images whose directions were found
NONE_HELD_OUT = "no view was held out: of less than ten images all are learned from"
STATES = 3  # of the arrays in a state: others are not gone on with
SAID_OF_MASK = "the half-maps' FSC is measured inside the mask: where that is tight, it looks better than it is"
SAID_OF_HAND = "its hand is not determined: the mirror image explains the images as well"


def from_unknown(
    options: Any, observed: Observed, edge: int, watch: Watch, run: RunDirectory, fresh: Volume | None
) -> Result:
    """Find directions and volume.

    Args:
        options: of the command line.
        observed: the images.
        edge: pixels of the file's images.
        watch: is told how far it is, and shown the volume.
        run: keeps what is done.
        fresh: what is fitted at the end in place of a VoxelGrid; not fitted yet.
    """
    size = observed.lines.shape[-1]
    start = None if options.start in (EM, GAN) else resized(any_volume(options.start), size, 3)
    mask = None if options.mask is None else _mask(options.mask, size)
    told = {name: getattr(options, name) for name in ("seeds", "seed", "max_shift", "start", "mask")}
    told |= {"kind": observed.kind, "size": size}
    # The volumes and not their names: a file can be another one by now.
    given = {
        "start": told["start"] if start is None else _digest(start),
        "mask": None if mask is None else _digest(mask),
    }
    mark = fingerprint({**told, **given, "states": STATES}, observed.lines)
    stages = read_state(run.path / STATE_FILE, mark, len(observed.lines), size) if options.resume else None
    share = 1.0 if fresh is None else LAST_STAGE
    watch.open()

    def save(stages: Stages) -> None:
        run.write(STATE_FILE, state_bytes(stages, mark))
        if mask is not None and stages.rounds is not None:
            stages = replace(stages, rounds=replace(stages.rounds, raw=stages.rounds.raw * mask))
        watch.show(stages)

    found = find_object(
        observed,
        seeds=options.seeds,
        seed=options.seed,
        max_shift=options.max_shift * size / edge,
        start=start,
        by_gan=options.start == GAN,
        mask=mask,
        polishes=fresh is None,
        stages=stages,
        tell=lambda done, doing: watch.tell(share * done, doing),
        save=save,
    )
    report = {
        **told,
        "images": len(observed.lines),
        "directions": "unknown",
        "unexplained": found.refined.unexplained,
        "noise_share": found.noise_share,
        "fsc_inside": "the ball" if mask is None else "the mask",
        "coverage": found.coverage,
        "agreement_of_starts": found.agreement,
        "unexplained_by_starts": found.left,
        "hand": "not determined: line integrals of an object and of its mirror image are the same",
    }
    lines, warnings, poses = [], [*found.warnings], found.refined.poses
    if found.agreement:
        lines.append(f"other starts agree with it by a correlation of {', '.join(f'{a:.3f}' for a in found.agreement)}")
    lines.append(SAID_OF_HAND)
    if mask is not None:
        lines.append(SAID_OF_MASK)
    volume, factor, attenuation = VoxelGrid.from_array(found.volume), 1.0, found.volume
    if fresh is not None:
        volume = fresh
        fitted, words = _last_stage(volume, options, observed, found, watch)
        attenuation, factor = _attenuation(volume, size, fitted.factor), fitted.factor
        lines.append(words)
        scale = depth_factor(observed.lines)  # no square is too small or too large for a number then
        grid, scaled = attenuation.clamp_min(0.0) * scale, observed.lines * scale
        poses = replace(poses, unexplained=unexplained_by(grid, scaled, poses, found.refined.resolution))
        report["unexplained"] = float(poses.unexplained.mean())
        if report["unexplained"] > found.refined.unexplained + EXCESS:
            warnings.append(
                f"the {type(volume).__name__} leaves {report['unexplained']:.0%} of the images unexplained, the volume "
                f"before it {found.refined.unexplained:.0%}: give more --steps, or another --volume"
            )
        report |= {"volume": type(volume).__name__, "steps": options.steps, "psnr_of_held_out_views": fitted.psnr}
    return Result(
        observed,
        volume,
        factor,
        attenuation,
        poses,
        mask,
        report,
        [_said_of_rest(report["unexplained"], found.noise_share), *lines],
        warnings,
        found.refined.halves,
        found.refined.curve,
        found.agreement,
    )


def _last_stage(volume: Volume, options: Any, observed: Observed, found: Found, watch: Watch) -> tuple[Fitted, str]:
    """Fit a volume of any kind from the directions that were found; and what it was fitted to, in words.

    Of images that are mostly noise it would learn the noise, which the found volume is free of: its views then stand
    for the images.
    """
    poses, size = found.refined.poses, observed.lines.shape[-1]
    clear = found.refined.resolution >= POLISHED_FROM * (size // 2)
    if clear:
        lines = moved_back(observed.lines, poses.shifts) if bool(poses.shifts.any()) else observed.lines
    else:
        lines = _views(found.volume, poses.rotations, size)
    fitted = _fitted(volume, lines, poses.rotations, options, observed, watch, LAST_STAGE)
    to = "images" if clear else "views of the refined volume, as the images are too noisy,"
    words = f"held-out {to} agree with its views to a PSNR of {fitted.psnr:.2f} dB"
    return fitted, f"{type(volume).__name__}: {NONE_HELD_OUT if math.isnan(fitted.psnr) else words}"


def from_known(options: Any, observed: Observed, edge: int, watch: Watch, volume: Volume) -> Result:
    """Fit a volume; the other arguments as of `from_unknown`."""
    size, count = observed.lines.shape[-1], len(observed.lines)
    # A .star file's origins are in angstrom: pixels of another unit, or of none, cannot stand for its own.
    angstrom = observed.pixel_size * size / edge if observed.unit == "angstrom" else None
    poses = read_poses(options.poses, count, edge, angstrom)
    shifts = poses.shifts * size / edge
    shifted = bool(shifts.any())
    lines = moved_back(observed.lines, shifts) if shifted else observed.lines
    watch.open()
    fitted = _fitted(volume, lines, poses.rotations, options, observed, watch, 0.0, shifted)
    attenuation = _attenuation(volume, size, fitted.factor)
    lines, shifts = moved_back(lines, fitted.shifts) if shifted else lines, shifts + fitted.shifts
    views = _views(attenuation.clamp_min(0.0), fitted.rotations, size)
    scale = depth_factor(lines)  # no square is too small or too large for a number then
    power = (lines * scale).square().sum((1, 2)).clamp_min(LEAST)
    left = ((views - lines) * scale).square().sum((1, 2)) / power
    found, unexplained = Poses(fitted.rotations, shifts, left), float(left.mean())
    noise = (size * observed.white_noise * scale) ** 2 / power
    noise_share = float(noise.mean().clamp(max=1.0)) if observed.noise_known else math.nan
    report = {
        "images": count,
        "directions": "known, refined" if options.refine_poses else "known",
        "volume": type(volume).__name__,
        "steps": options.steps,
        "psnr_of_held_out_views": fitted.psnr,
        "unexplained": unexplained,
        "noise_share": noise_share,
        "kind": observed.kind,
        "size": size,
    }
    held_out = f"held-out views: PSNR {fitted.psnr:.2f} dB (one image of ten is never learned from)"
    said = [NONE_HELD_OUT if math.isnan(fitted.psnr) else held_out, _said_of_rest(unexplained, noise_share)]
    warnings = _warnings_of_known(unexplained, noise_share)
    return Result(observed, volume, fitted.factor, attenuation, found, None, report, said, warnings)


def _said_of_rest(unexplained: float, noise_share: float) -> str:
    if math.isnan(noise_share):
        return f"unexplained: {unexplained:.1%} of the images' power; the images do not tell how much is noise"
    return f"unexplained: {unexplained:.1%} of the images' power, of which noise {noise_share:.1%}"


def _warnings_of_known(unexplained: float, noise_share: float) -> list[str]:
    """What says that the directions, or something else, cannot be what they were given for."""
    known = 0.0 if math.isnan(noise_share) else noise_share
    if unexplained <= known + EXCESS:
        return []
    noise = (
        "how much noise there is cannot be measured" if math.isnan(noise_share) else f"noise accounts for {known:.0%}"
    )
    return [
        f"the volume leaves {unexplained:.0%} of the images unexplained, and {noise}: it may be wrong; --poses may be "
        "of other images, in another order, or turned the other way (a transposed matrix is the inverse rotation), "
        "or not exact (--refine_poses moves them), --input may be wrong, or more --steps are needed"
    ]


def built(kind: type[Volume], size: int, arguments: Mapping[str, Any], seed: int = 0) -> Volume:
    """A fresh volume of a kind; a VoxelGrid has the images' size, unless told otherwise.

    Args:
        kind: its class.
        size: of the images, pixels along an edge.
        arguments: of the constructor, those that were given.
        seed: of the first weights.

    Raises:
        ConfigError: it cannot be built so, or does not fit into the memory.
    """
    arguments = {**({"resolution": size} if kind is VoxelGrid else {}), **arguments}
    check_fit(kind, arguments, views=BATCH, image_size=size)
    torch.manual_seed(seed)
    return build_volume(Config(volume={"class_path": class_path(kind), "init_args": arguments}))


def _fitted(
    volume: Volume,
    lines: Float[Tensor, "B N N"],
    rotations: Float[Tensor, "B 3 3"],
    options: Any,
    observed: Observed,
    watch: Watch,
    begun: float,
    shifted: bool = False,
) -> Fitted:
    size = lines.shape[-1]

    def tell(share: float) -> None:
        watch.tell(begun + (1.0 - begun) * share, "fitting the volume")
        watch.glance(lambda: _attenuation(volume, size, 1.0))

    fitted = fit_known(
        volume,
        lines,
        rotations,
        arbitrary=observed.kind == "line_integral",
        steps=options.steps,
        batch=BATCH,
        generator=Generator().manual_seed(options.seed),
        refine_poses=options.refine_poses,
        refine_shifts=options.refine_poses and shifted,
        tell=tell,
    )
    if isinstance(volume, VoxelGrid):
        absorb_nothing(volume)
    return fitted


def _attenuation(volume: Volume, size: int, factor: float) -> Float[Tensor, "N N N"]:
    """Of a volume that was fitted, per world unit, on a grid of the images' size."""
    dense = volume.dense()
    if dense is None or len({*dense.shape[1:]}) > 1:
        dense = VoxelGrid.from_field(volume, size).dense()
    return resized(dense[0].detach(), size, 3) / factor


def _views(attenuation: Float[Tensor, "N N N"], rotations: Float[Tensor, "B 3 3"], size: int) -> Float[Tensor, "B N N"]:
    return torch.cat([line_integrals(attenuation, part, size) for part in rotations.split(VIEWS_AT_ONCE)])


def _digest(volume: Tensor) -> str:
    return hashlib.sha256(volume.contiguous().numpy().tobytes()).hexdigest()


def _mask(given: str, size: int) -> Tensor:
    """Where the values of the file, and not what they are per world unit, are > 0.5."""
    mask = (resized(any_volume(given) / _scale_of(given), size, 3) > 0.5).float() * soft_ball(size)
    if not bool(mask.any()):
        raise DataError(f"mask={given}: no value is > 0.5, so nothing may be anywhere; scale it")
    return mask


def _scale_of(given: str) -> float:
    """What `any_volume` multiplied the values of a mask's file by, as its unit of length is not the world's.

    Raises:
        DataError: it was turned onto other axes, so that this is not known.
    """
    path, pick = split_pick(given)
    suffix = next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), None)
    if suffix is None or path.is_dir() or "percentile" in pick.values:  # which says itself what values become
        return 1.0
    found = READERS[suffix](path, pick)
    if found.oblique is not None:
        raise DataError(f"mask={given}: its axes are oblique; write it on straight ones, as those of volume.mrc are")
    return found.scale
