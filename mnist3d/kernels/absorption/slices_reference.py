"""The "slices" quadrature in plain PyTorch: a page that can be checked by reading, in any float dtype."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..compositing import composite
from .shear_warp import COLUMN_AXIS, ROW_AXIS, ball_share, margin, shear_of


def render_slices_reference(
    attenuation: Float[Tensor, "Z Y X"],
    absorbance: Float[Tensor, "Z Y X"],
    rotation: Float[Tensor, "B 3 3"],
    image_size: int,
) -> Float[Tensor, "B H W"]:
    """See `render_grid`, quadrature="slices"."""
    depth, height, width = attenuation.shape
    share = ball_share((depth, height, width), dtype=attenuation.dtype, device=attenuation.device)
    inside = attenuation * share
    axes, forward, numbers = shear_of(rotation)
    images = [
        _render_view(inside, absorbance, int(axis), bool(ahead), row, image_size)
        for axis, ahead, row in zip(axes, forward, numbers, strict=True)
    ]
    if not images:
        return (numbers.sum() * attenuation.sum() * absorbance.sum()).expand(0, image_size, image_size)
    return torch.stack(images)


def _render_view(
    attenuation: Tensor, absorbance: Tensor, axis: int, forward: bool, numbers: Tensor, image_size: int
) -> Tensor:
    # The grid's axes are (z, y, x), world axes x, y, z: world axis i is dimension 2 - i.
    order = (2 - axis, 2 - ROW_AXIS[axis], 2 - COLUMN_AXIS[axis])
    attenuation, absorbance = attenuation.permute(order), absorbance.permute(order)
    if not forward:
        attenuation, absorbance = attenuation.flip(0), absorbance.flip(0)
    slices, rows, columns = attenuation.shape
    above, left = margin(rows), margin(columns)
    along = (2.0 * torch.arange(slices, dtype=numbers.dtype, device=numbers.device) + 1.0) / slices - 1.0
    along = along if forward else -along
    row = torch.arange(rows + 2 * above, device=numbers.device) - above
    column = torch.arange(columns + 2 * left, device=numbers.device) - left
    row = row + (numbers[5] * along * (rows / 2.0))[:, None]
    column = column + (numbers[4] * along * (columns / 2.0))[:, None]
    sampled = _interpolate(F.pad(attenuation[None], (1, 1, 1, 1, 0, 0))[0], row + 1.0, column + 1.0)
    colour = _interpolate(F.pad(absorbance[None], (1, 1, 1, 1, 0, 0), mode="replicate")[0], row + 1.0, column + 1.0)
    opacity = -torch.expm1(-sampled * (numbers[6] * (2.0 / slices)))
    sheared = composite(opacity.permute(1, 2, 0), colour.permute(1, 2, 0))

    centre = (2.0 * torch.arange(image_size, dtype=numbers.dtype, device=numbers.device) + 1.0) / image_size - 1.0
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    at_column = (numbers[0] * u + numbers[1] * v + 1.0) * (columns / 2.0) - 0.5 + left
    at_row = (numbers[2] * u + numbers[3] * v + 1.0) * (rows / 2.0) - 0.5 + above
    image = _bilinear(sheared[None], at_row[None], at_column[None])[0]
    return torch.where(u * u + v * v < 1.0, image, torch.zeros_like(image))


def _interpolate(planes: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Each plane (S, R, C) at its own grid of rows (S, r) and columns (S, c); zero where that is outside."""
    shape = (*row.shape, column.shape[1])
    return _bilinear(planes, row[:, :, None].expand(shape), column[:, None, :].expand(shape))


def _bilinear(planes: Tensor, row: Tensor, column: Tensor) -> Tensor:
    rows, columns = planes.shape[1:]
    inside = (row >= 0) & (row < rows - 1) & (column >= 0) & (column < columns - 1)
    top, left = row.floor().clamp(0, rows - 2), column.floor().clamp(0, columns - 2)
    down, right = row - top, column - left
    index = torch.arange(len(planes), device=planes.device)[:, None, None]
    i, j = top.long(), left.long()
    upper = planes[index, i, j] * (1 - right) + planes[index, i, j + 1] * right
    lower = planes[index, i + 1, j] * (1 - right) + planes[index, i + 1, j + 1] * right
    return torch.where(inside, upper * (1 - down) + lower * down, torch.zeros_like(down))
