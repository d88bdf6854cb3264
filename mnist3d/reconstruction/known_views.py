"""One object from images whose directions are known: any volume, by gradient through the renderer."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..rendering.renderer import AbsorptionRenderer
from ..volumes.base import Volume, grid_shape
from ..volumes.occupancy import FIRST, MovingOccupancy
from ..volumes.voxel_grid import VoxelGrid
from ..volumes.wrappers import UnabsorbedField
from .images import moved_by
from .so3 import rotation_of

HELD_OUT = 10  # of so many images one is never learned from
RATE, LAST_RATE = 0.06, 0.05  # of the volume, as `mnist3d train` has it; what is left of it at the end
BETAS = 0.9, 0.99
# At first there is too much matter everywhere, so each weight goes down at each step. A field whose weights stand for
# many places can be empty before that is over: then the fit begins anew with a share of the rates.
EMPTY, SCALES = 0.01, (1.0, 0.3, 0.1, 0.03)  # of the mean that is wanted, all that a view shows; the shares
POSE_RATE = 0.003  # radians a step, and world units, at first
DEPTH = 1.0  # optical depth that the thickest rays of line integrals are brought to, where views are nearly linear
THICK, SOME = 0.999, 10**6  # which rays count as the thickest, and of how many pixels they are found
LEAST = 1e-30  # depth of the thickest rays that counts as one


def absorb_nothing(volume: VoxelGrid) -> None:
    """Let a grid absorb nothing, whatever it learns: it shows what X-rays show then."""
    with torch.no_grad():
        volume.bias[1] = -math.inf


def depth_factor(lines: Float[Tensor, "B N N"]) -> float:
    """What line integrals of an arbitrary scale are multiplied by, so that the thickest rays are `DEPTH` deep.

    Args:
        lines: of any scale and sign.
    """
    some = lines.flatten()[:: max(1, lines.numel() // SOME)].abs()
    return DEPTH / max(float(some.quantile(THICK)), LEAST)


@dataclass(frozen=True)
class Fitted:
    """A volume that was fitted, which holds attenuation per world unit times the factor.

    Args:
        factor: what line integrals were multiplied by.
        rotations: of all images, refined or as they were given.
        shifts: how far each object lies off the middle of its image, pixels, right and down; 0 where they did not move.
        psnr: of the views of held-out images, dB; NaN where none was held out.
        losses: mean squared error of each step, of a fit that was begun anew those of the last time.
    """

    factor: float
    rotations: Float[Tensor, "B 3 3"]
    shifts: Float[Tensor, "B 2"]
    psnr: float
    losses: list[float]


def fit_known(
    volume: Volume,
    lines: Float[Tensor, "B N N"],
    rotations: Float[Tensor, "B 3 3"],
    *,
    arbitrary: bool,
    steps: int,
    batch: int,
    generator: Generator,
    refine_poses: bool = False,
    refine_shifts: bool = False,
    tell: Callable[[float], None] = lambda share: None,
) -> Fitted:
    """Fit a volume to images.

        minimise mean |view(volume, R) - (1 - exp(-lines))|^2

    One without a grid is not asked where it is empty (`MovingOccupancy`). A fit that becomes empty before it grows
    begins anew from the volume's state, at lower rates.

    Args:
        volume: any backend; is trained in place.
        lines: line integrals, not shifted.
        rotations: x_camera = R x_world of each.
        arbitrary: whether the scale of the line integrals means nothing, so that they may be scaled.
        steps: of Adam.
        batch: images a step.
        generator: of the order of the images, and of sample positions on rays.
        refine_poses: whether rotations of images that are learned from move too.
        refine_shifts: whether these images also move in their planes, against the views.
        tell: is handed the share that is done.
    """
    size, count = lines.shape[-1], len(lines)
    factor = depth_factor(lines) if arbitrary else 1.0
    wanted = -torch.expm1(-lines * factor)
    held = torch.arange(count) % HELD_OUT == HELD_OUT - 1
    learned = (~held).nonzero()[:, 0]
    renderer, field = AbsorptionRenderer(size), UnabsorbedField(volume)
    turns = torch.zeros(count, 3, requires_grad=refine_poses)
    moves = torch.zeros(count, 2, requires_grad=refine_shifts)  # world units: a step of a turn moves the rim as far
    free = [each for each in (turns, moves) if each.requires_grad]
    start = copy.deepcopy(volume.state_dict())
    depth = factor / depth_factor(lines)  # of the thickest rays
    volume.train()

    def descend(scale: float, may_end: bool) -> list[float]:
        """Losses of all steps; of some, where the volume has become empty and no gradient would fill it again."""
        optimiser, losses, grown, seen = _adam(volume, free, scale), [], False, False
        occupancy = MovingOccupancy(depth, round(FIRST / scale)) if grid_shape(volume) is None else None
        order = torch.empty(0, dtype=torch.long)
        for step in range(steps):
            if len(order) < batch:
                order = torch.cat([order, learned[torch.randperm(len(learned), generator=generator)]])
            chosen, order = order[:batch], order[batch:]
            progress = step / steps
            if volume.grow(step, progress):
                optimiser, grown = _adam(volume, free, scale), True
            falling = LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress))
            for group in optimiser.param_groups:
                group["lr"] = group["first"] * falling
            turned = rotation_of(turns[chosen]) @ rotations[chosen] if refine_poses else rotations[chosen]
            cells = None if occupancy is None else occupancy.at_step(step, volume, generator)
            view = renderer(field, turned, generator=generator, occupancy=cells)[:, 0]
            empty = float(view.detach().amax()) < EMPTY * float(wanted[chosen].mean())
            if may_end and seen and empty and not grown:
                return losses
            seen = seen or not empty  # a start that is dark fills by and by
            view = moved_by(view, moves[chosen] * (size / 2.0)) if refine_shifts else view
            loss = (view - wanted[chosen]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
            tell((step + 1) / steps)
        return losses

    losses: list[float] = []
    for scale in SCALES:
        if scale < SCALES[0]:
            volume.load_state_dict(start)
            with torch.no_grad():
                turns.zero_()
                moves.zero_()
        losses = descend(scale, may_end=scale > SCALES[-1])
        if len(losses) == steps:
            break
    volume.eval()
    with torch.no_grad():
        found = rotation_of(turns.detach()) @ rotations if refine_poses else rotations
        error = [
            (renderer(field, rotations[part])[:, 0] - wanted[part]).square().mean((1, 2))
            for part in held.nonzero()[:, 0].split(batch)
        ]
    psnr = -10.0 * math.log10(max(float(torch.cat(error).mean()), 1e-12)) if error else math.nan
    return Fitted(factor, found, moves.detach() * (size / 2.0), psnr, losses)


def _adam(volume: Volume, free: list[Tensor], scale: float) -> torch.optim.Adam:
    """Of a volume's weights, whose rates are scaled, and of what poses may move by; each group knows its first rate."""
    groups = [{**group, "first": scale * RATE * group.get("rate", 1.0)} for group in volume.parameter_groups()]
    groups += [{"params": free, "first": POSE_RATE}] if free else []
    return torch.optim.Adam(groups, lr=RATE, betas=BETAS)
