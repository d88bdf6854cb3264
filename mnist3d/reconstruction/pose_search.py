"""From which direction each image was taken, given the volume: all rotations tried, and the best made exact."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .fourier import coefficients, half_disc, moved, slices, volume_transform
from .so3 import angle_between, rotation_grid, rotation_of

CANDIDATES, APART = 3, math.radians(20.0)  # how many poses of an image are refined, and how far apart they are
SEARCH_SHELL = 8  # finer shells than this are left to the refinement
SCORES_AT_ONCE = 2**24  # bounds the memory: of images times rotations
IMAGES_AT_ONCE = 500
TURN = 0.02  # of finite differences, radians: a third of a pixel at the rim of 32 pixels
MOST_TURN, MOST_SHIFT = 0.12, 1.0  # of a step, radians and pixels
DAMPING, EASIER, HARDER = 1e-3, 0.3, 10.0  # of Levenberg and Marquardt: start, after a good step, after a bad one
TINY = 1e-9


@dataclass(frozen=True)
class Poses:
    """Where the images were taken from.

    Args:
        rotations: x_camera = R x_world.
        shifts: how far the object is off the middle of the image, pixels, right and down.
        unexplained: share of each image's power that the volume's view leaves, >= 0.
    """

    rotations: Float[Tensor, "B 3 3"]
    shifts: Float[Tensor, "B 2"]
    unexplained: Float[Tensor, " B"]

    def at(self, index: Tensor | slice) -> "Poses":
        """Those of some images."""
        return Poses(self.rotations[index], self.shifts[index], self.unexplained[index])


def search(
    volume: Float[Tensor, "N N N"],
    images: Float[Tensor, "B N N"],
    shifts: Float[Tensor, "B 2"],
    *,
    spacing: float,
    shell: int,
    normalised: bool = False,
    candidates: int = CANDIDATES,
) -> Float[Tensor, "K B 3 3"]:
    """The best rotations of a grid for each image, the best first, each far from those before.

    Args:
        volume: attenuation per world unit.
        images: line integrals.
        shifts: what each image is taken to be shifted by, pixels.
        spacing: of the grid, radians.
        shell: up to which image and view are compared.
        normalised: compare by correlation, whatever the volume's scale, and not by distance.
        candidates: K.
    """
    grid = rotation_grid(spacing)
    wanted, view = compared(volume, images, grid.flatten(0, 1), shell, shifts)
    power = view.square().sum(1)
    if normalised:
        view, power = view / power.sqrt().clamp_min(TINY)[:, None], torch.zeros_like(power)
    at_once = max(1, SCORES_AT_ONCE // len(view))
    parts = [_best(part @ view.T - 0.5 * power, grid, candidates) for part in wanted.split(at_once)]
    return torch.cat(parts, dim=1)


def compared(
    volume: Float[Tensor, "N N N"],
    images: Float[Tensor, "B N N"],
    rotations: Float[Tensor, "G 3 3"],
    shell: int,
    shifts: Float[Tensor, "B 2"] | None = None,
) -> tuple[Float[Tensor, "B F"], Float[Tensor, "G F"]]:
    """Coefficients up to a shell, of the images with their shifts undone, and of the volume's views."""
    size = images.shape[-1]
    frequencies = half_disc(min(shell, size // 2 - 1))
    found = coefficients(images, frequencies)
    found = found if shifts is None else moved(found, frequencies, -shifts, size)
    return found.flatten(1), slices(volume_transform(volume), rotations, frequencies).flatten(1)


def _best(score: Float[Tensor, "B G"], grid: Float[Tensor, "D P 3 3"], candidates: int) -> Float[Tensor, "K B 3 3"]:
    """The rotations of the highest scores, one roll of each direction, each far from those before."""
    best, rolls = score.unflatten(1, grid.shape[:2]).max(-1)
    rotations = grid[torch.arange(len(grid)), rolls]
    found: list[Tensor] = []
    for number in range(candidates):
        if number > 0:
            best = torch.where(angle_between(rotations, found[-1][:, None]) < APART, -torch.inf, best)
        found.append(rotations[torch.arange(len(best)), best.argmax(1)])
    return torch.stack(found)


def refine(
    volume: Float[Tensor, "N N N"],
    images: Float[Tensor, "B N N"],
    poses: Poses,
    *,
    shell: int,
    iterations: int,
    shifted: bool,
) -> Poses:
    """Each image's rotation, and shift, moved to where the volume's view fits it best nearby.

        minimise |image - view(rotation, shift)|^2 over the coefficients up to a shell

    by Gauss-Newton with Levenberg and Marquardt's damping: a step that makes it worse is not taken.

    Args:
        volume: attenuation per world unit.
        images: line integrals.
        poses: where to begin.
        shell: up to which image and view are compared.
        iterations: of a step each.
        shifted: whether shifts move too.
    """
    size = images.shape[-1]
    frequencies = half_disc(min(shell, size // 2 - 1))
    transform = volume_transform(volume)
    parts = [
        _refined(
            transform, coefficients(images[part], frequencies), poses.at(part), frequencies, iterations, shifted, size
        )
        for part in torch.arange(len(images)).split(IMAGES_AT_ONCE)
    ]
    return Poses(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def _refined(
    transform: Float[Tensor, "2 M M M"],
    wanted: Float[Tensor, "B F 2"],
    poses: Poses,
    frequencies: Int[Tensor, "F 2"],
    iterations: int,
    shifted: bool,
    size: int,
) -> Poses:
    def seen(rotations: Tensor, shifts: Tensor) -> Tensor:
        view = slices(transform, rotations, frequencies)
        return moved(view, frequencies, shifts, size) if shifted else view

    rotations, shifts = poses.rotations, poses.shifts
    if not shifted:
        wanted = moved(wanted, frequencies, -shifts, size)
    view = seen(rotations, shifts)
    error = (wanted - view).square().sum((1, 2))
    damping = torch.full_like(error, DAMPING)
    slope = frequencies.to(view) * (-2.0 * math.pi / size)  # d phase / d shift
    for _ in range(iterations):
        columns = [(seen(rotation_of(turn) @ rotations, shifts) - view) / TURN for turn in TURN * torch.eye(3)]
        if shifted:  # i * slope * view
            turned = torch.stack([-view[..., 1], view[..., 0]], dim=-1)
            columns += [turned * slope[:, axis, None] for axis in range(2)]
        jacobian = torch.stack(columns, dim=1).flatten(2)
        square = jacobian @ jacobian.mT
        diagonal = square.diagonal(dim1=1, dim2=2)
        # A direction that changes nothing gets a step of nothing.
        square = square + torch.diag_embed(damping[:, None] * diagonal + TINY * diagonal.amax(1, keepdim=True) + 1e-30)
        step = torch.linalg.solve(square, jacobian @ (wanted - view).flatten(1)[..., None])[..., 0]
        turn = step[:, :3] * (MOST_TURN / step[:, :3].norm(dim=1, keepdim=True).clamp_min(MOST_TURN))
        new = rotation_of(turn) @ rotations, shifts + step[:, 3:].clamp(-MOST_SHIFT, MOST_SHIFT) if shifted else shifts
        then = seen(*new)
        after = (wanted - then).square().sum((1, 2))
        better = after < error
        rotations = torch.where(better[:, None, None], new[0], rotations)
        shifts = torch.where(better[:, None], new[1], shifts)
        view, error = torch.where(better[:, None, None], then, view), torch.where(better, after, error)
        damping = torch.where(better, damping * EASIER, damping * HARDER)
    return Poses(rotations, shifts, error / wanted.square().sum((1, 2)).clamp_min(1e-30))


def better_of(first: Poses, second: Poses) -> Poses:
    """Of each image the pose that explains more."""
    taken = second.unexplained < first.unexplained
    return Poses(
        torch.where(taken[:, None, None], second.rotations, first.rotations),
        torch.where(taken[:, None], second.shifts, first.shifts),
        torch.where(taken, second.unexplained, first.unexplained),
    )
