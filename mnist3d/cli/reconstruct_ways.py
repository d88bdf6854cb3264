"""The two ways to an object: from images whose directions nobody knows, and from known ones."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..errors import DataError
from ..reconstruction.fourier import resized, soft_ball
from ..reconstruction.images import Observed, moved_back
from ..reconstruction.known_views import Fitted, fit_known, unabsorbing
from ..reconstruction.pose_search import Poses
from ..reconstruction.poses import read_poses
from ..reconstruction.projection import line_integrals
from ..reconstruction.state_file import STATE_FILE, fingerprint, read_state, state_bytes
from ..reconstruction.unknown_views import POLISHED_FROM, Found, Stages, find_object
from ..runs.class_paths import import_volume_class
from ..storage.run_directory import RunDirectory
from ..volumes.base import Volume
from ..volumes.voxel_grid import VoxelGrid
from .any_volume import any_volume
from .reconstruct_files import Result
from .reconstruct_watch import Watch

EM, GAN = "em", "gan"  # ways to start, beside a volume
BATCH = 16  # images a step of a volume that is fitted by gradient
VIEWS_AT_ONCE = 100
LAST_STAGE = 0.7  # of the time, about, when `--volume` begins to be fitted to images whose directions were found
SAID_OF_HAND = "its hand is not determined: the mirror image explains the images as well"


def from_unknown(options: Any, observed: Observed, edge: int, watch: Watch, run: RunDirectory) -> Result:
    """Find directions and volume.

    Args:
        options: of the command line.
        observed: the images.
        edge: pixels of the file's images.
        watch: is told how far it is, and shown the volume.
        run: keeps what is done.
    """
    size = observed.lines.shape[-1]
    kind = None if options.volume is None else import_volume_class(options.volume)
    start = None if options.start in (EM, GAN) else resized(any_volume(options.start), size, 3)
    mask = None if options.mask is None else _mask(options.mask, size)
    told = {name: getattr(options, name) for name in ("seeds", "seed", "max_shift", "start", "mask")}
    told |= {"kind": observed.kind, "size": size}
    mark = fingerprint(told, observed.lines)
    stages = read_state(run.path / STATE_FILE, mark, len(observed.lines), size) if options.resume else None
    share = 1.0 if kind is None else LAST_STAGE
    watch.open()

    def save(stages: Stages) -> None:
        run.write(STATE_FILE, state_bytes(stages, mark))
        watch.show(stages)

    found = find_object(
        observed,
        seeds=options.seeds,
        seed=options.seed,
        max_shift=options.max_shift * size / edge,
        start=start,
        by_gan=options.start == GAN,
        mask=mask,
        polishes=kind is None,
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
        "coverage": found.coverage,
        "agreement_of_starts": found.agreement,
        "unexplained_by_starts": found.left,
        "hand": "not determined: line integrals of an object and of its mirror image are the same",
    }
    lines = [
        f"unexplained: {found.refined.unexplained:.1%} of the images' power, of which noise {found.noise_share:.1%}"
    ]
    if found.agreement:
        lines.append(f"other starts agree with it by a correlation of {', '.join(f'{a:.3f}' for a in found.agreement)}")
    lines.append(SAID_OF_HAND)
    volume, factor, attenuation = VoxelGrid.from_array(found.volume), 1.0, found.volume
    if kind is not None:
        volume, fitted, words = _last_stage(kind, options, observed, found, watch)
        attenuation, factor = _attenuation(volume, size, fitted.factor), fitted.factor
        lines.append(words)
        report |= {"volume": kind.__name__, "steps": options.steps, "psnr_of_held_out_views": fitted.psnr}
    return Result(
        observed,
        volume,
        factor,
        attenuation,
        found.refined.poses,
        mask,
        report,
        lines,
        found.warnings,
        found.refined.halves,
        found.refined.curve,
        found.agreement,
    )


def _last_stage(
    kind: type[Volume], options: Any, observed: Observed, found: Found, watch: Watch
) -> tuple[Volume, Fitted, str]:
    """A volume of any kind, fitted from the directions that were found; and what it was fitted to, in words.

    Of images that are mostly noise it would learn the noise, which the found volume is free of: its views then stand
    for the images.
    """
    poses, size = found.refined.poses, observed.lines.shape[-1]
    clear = found.refined.resolution >= POLISHED_FROM * (size // 2)
    if clear:
        lines = moved_back(observed.lines, poses.shifts) if bool(poses.shifts.any()) else observed.lines
    else:
        lines = _views(found.volume, poses.rotations, size)
    torch.manual_seed(options.seed)
    volume = built(kind, size)
    fitted = _fitted(volume, lines, poses.rotations, options, observed, watch, LAST_STAGE)
    to = "images" if clear else "views of the refined volume, as the images are too noisy,"
    return volume, fitted, f"{kind.__name__}: held-out {to} agree with its views to a PSNR of {fitted.psnr:.2f} dB"


def from_known(options: Any, observed: Observed, edge: int, watch: Watch) -> Result:
    """Fit a volume; arguments as of `from_unknown`."""
    size, count = observed.lines.shape[-1], len(observed.lines)
    poses = read_poses(options.poses, count, edge, observed.pixel_size * size / edge)
    shifts = poses.shifts * size / edge
    shifted = bool(shifts.any())
    lines = moved_back(observed.lines, shifts) if shifted else observed.lines
    torch.manual_seed(options.seed)  # the initial weights of any backend
    volume = built(VoxelGrid if options.volume is None else import_volume_class(options.volume), size)
    watch.open()
    fitted = _fitted(volume, lines, poses.rotations, options, observed, watch, 0.0, shifted)
    attenuation = _attenuation(volume, size, fitted.factor)
    lines, shifts = moved_back(lines, fitted.shifts) if shifted else lines, shifts + fitted.shifts
    views = _views(attenuation.clamp_min(0.0), fitted.rotations, size)
    left = (views - lines).square().sum((1, 2)) / lines.square().sum((1, 2)).clamp_min(1e-12)
    found = Poses(fitted.rotations, shifts, left)
    report = {
        "images": count,
        "directions": "known, refined" if options.refine_poses else "known",
        "volume": type(volume).__name__,
        "steps": options.steps,
        "psnr_of_held_out_views": fitted.psnr,
        "kind": observed.kind,
        "size": size,
    }
    said = [f"held-out views: PSNR {fitted.psnr:.2f} dB (one image of ten is never learned from)"]
    return Result(observed, volume, fitted.factor, attenuation, found, None, report, said, [])


def built(kind: type[Volume], size: int) -> Volume:
    """A fresh volume of a kind with its default arguments; a VoxelGrid has the images' size.

    Raises:
        DataError: the class needs arguments.
    """
    if kind is VoxelGrid:
        return unabsorbing(size)
    try:
        return kind()
    except (TypeError, ValueError) as error:
        raise DataError(f"volume={kind.__name__}: cannot be built with its default arguments ({error})") from None


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

    return fit_known(
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


def _attenuation(volume: Volume, size: int, factor: float) -> Float[Tensor, "N N N"]:
    """Of a volume that was fitted, per world unit, on a grid of the images' size."""
    dense = volume.dense()
    grid = dense[0].detach() if dense is not None else VoxelGrid.from_field(volume, size).dense()[0].detach()
    return resized(grid, size, 3) / factor


def _views(attenuation: Float[Tensor, "N N N"], rotations: Float[Tensor, "B 3 3"], size: int) -> Float[Tensor, "B N N"]:
    return torch.cat([line_integrals(attenuation, part, size) for part in rotations.split(VIEWS_AT_ONCE)])


def _mask(given: str, size: int) -> Tensor:
    mask = (resized(any_volume(given), size, 3) > 0.5).float() * soft_ball(size)
    if not bool(mask.any()):
        raise DataError(f"mask={given}: no value is > 0.5, so nothing may be anywhere; scale it")
    return mask
