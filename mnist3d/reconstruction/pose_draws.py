"""Poses of images in which noise hides the right one: drawn, and not the likeliest."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from .fourier import coefficients, half_disc
from .pose_search import SCORES_AT_ONCE, Poses, compared
from .so3 import rotation_grid

SHIFT_SPACING = 0.5  # pixels at most, of a grid of shifts that lies elsewhere each time


@dataclass(frozen=True)
class Drawn:
    """What was drawn for each image.

    Args:
        rotations: K of them.
        shifts: drawn with each, pixels.
        poses: the likeliest rotation for the shift that was given, and the first of the shifts that were drawn, which
            is handed on to the next round.
    """

    rotations: Float[Tensor, "K B 3 3"]
    shifts: Float[Tensor, "K B 2"]
    poses: Poses


def draw(
    volume: Float[Tensor, "N N N"],
    images: Float[Tensor, "B N N"],
    shifts: Float[Tensor, "B 2"],
    noise: float,
    *,
    spacing: float,
    shell: int,
    draws: int,
    generator: Generator,
    max_shift: float = 0.0,
) -> Drawn:
    """Rotations of a grid drawn for each image by how likely they are, and shifts for each of these rotations.

        p(R | t) ~ exp(-|image moved by -t - view(R)|^2 / (2 noise^2))
        p(t | R) likewise, with |t_x|, |t_y| <= max_shift

    Where noise hides which rotation is right, the likeliest is mostly a wrong one that fits the noise, and a volume
    made of these fits it too; draws do not. Shifts that are handed on from round to round are a Gibbs sampler of both.

    Args:
        volume: attenuation per world unit.
        images: line integrals.
        shifts: what each image is taken to be shifted by, pixels: those that were drawn before.
        noise: standard deviation of a pixel, > 0.
        spacing: of the grid of rotations, radians.
        shell: up to which image and view are compared.
        draws: K.
        generator: of the draws.
        max_shift: pixels; 0: shifts stay.

    Source:
        Scheres, "RELION: implementation of a Bayesian approach to cryo-EM structure determination" (2012), whose sum
        over all rotations and shifts is a mean of draws here; Geman and Geman, "Stochastic relaxation, Gibbs
        distributions, and the Bayesian restoration of images" (1984).
    """
    size = images.shape[-1]
    grid = rotation_grid(spacing).flatten(0, 1)
    wanted, view = compared(volume, images, grid, shell, shifts)
    frequencies = half_disc(min(shell, size // 2 - 1))
    # Of noise, real and imaginary part of a coefficient have a variance of size^2 noise^2 / 2 each.
    certainty = 2.0 / (size * noise) ** 2
    drawn, moves, best, left = [], [], [], []
    scores = max(len(grid), _cells(max_shift) ** 2)
    for part in torch.arange(len(images)).split(max(1, SCORES_AT_ONCE // scores)):
        score = wanted[part] @ view.T - 0.5 * view.square().sum(1)
        most, place = score.max(1)
        best.append(grid[place])
        left.append(wanted[part].square().sum(1) - 2.0 * most)
        chosen = chosen_by(score * certainty, draws, generator)
        drawn.append(grid[chosen])
        moves.append(shifts[part, None].expand(-1, draws, -1))
        if max_shift > 0.0:
            found = coefficients(images[part], frequencies)
            seen = (view[each].unflatten(1, (-1, 2)) for each in chosen.T)
            each = [draw_shifts(found, its, frequencies, size, certainty, max_shift, generator) for its in seen]
            moves[-1] = torch.stack(each, dim=1)
    unexplained = torch.cat(left) / wanted.square().sum(1).clamp_min(1e-30)
    moved = torch.cat(moves).transpose(0, 1)
    return Drawn(torch.cat(drawn).transpose(0, 1), moved, Poses(torch.cat(best), moved[0], unexplained))


def draw_shifts(
    images: Float[Tensor, "B F 2"],
    views: Float[Tensor, "B F 2"],
    frequencies: Int[Tensor, "F 2"],
    size: int,
    certainty: float | Tensor,
    max_shift: float,
    generator: Generator,
) -> Float[Tensor, "B 2"]:
    """A shift for each image, pixels, drawn by how well its view fits when it is moved so.

        p(t) ~ exp(certainty Re sum(image conj(view moved by t))),   |t_x|, |t_y| <= max_shift

    Args:
        images: coefficients of the images, not moved.
        views: of each image's view.
        frequencies: of the coefficients, cycles over the width.
        size: pixels of an image's edge.
        certainty: by how much a score counts.
        max_shift: pixels, > 0.
        generator: of the draws, and of where in its cell of a grid each shift lies, which is new each time.
    """
    cells = _cells(max_shift)
    y, x = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
    inside = torch.stack([x, y], dim=-1).flatten(0, 1) + torch.rand(2, generator=generator)
    grid = inside * (2.0 * max_shift / cells) - max_shift
    product = torch.view_as_complex(images.contiguous()) * torch.view_as_complex(views.contiguous()).conj()
    turns = frequencies.to(grid) @ grid.T * (2.0 * math.pi / size)
    score = product.real @ turns.cos() - product.imag @ turns.sin()
    return grid[chosen_by(score * certainty, 1, generator)[:, 0]]


def _cells(max_shift: float) -> int:
    """Along an edge of the grid of shifts."""
    return math.ceil(2.0 * max_shift / SHIFT_SPACING)


def chosen_by(logits: Float[Tensor, "B G"], draws: int, generator: Generator) -> Int[Tensor, "B K"]:
    """Which of G, drawn with the probabilities softmax(logits), K times for each row."""
    likely = logits.softmax(1).cumsum(1)
    drawn = torch.rand(len(logits), draws, generator=generator) * likely[:, -1:]
    return torch.searchsorted(likely, drawn).clamp_max(logits.shape[1] - 1)
