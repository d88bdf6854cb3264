"""Opacity of a step and absorbance from raw values, with a gradient that needs the two alone."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# Bounds the memory of what lies between. So few numbers are never shared out to torch's threads, at whose ends the last
# ones would be rounded in another way: what comes out does not depend on how many threads there are.
BLOCKS_AT_ONCE = 2**5


def activated(raw: Float[Tensor, "2 ..."], share: float) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Opacity 1 - exp(-share softplus(raw[0])) of one step, and absorbance sigmoid(raw[1]).

    Args:
        raw: any.
        share: step of a ray to the voxel step that raw values are for, > 0.
    """
    return -torch.expm1(F.softplus(raw[0]) * -share), torch.sigmoid(raw[1])


def activated_beside(raw: Float[Tensor, "2 N 8 8 8"], share: float) -> Float[Tensor, "N 8 8 8 2"]:
    """`activated`, the two beside each other; a few blocks at a time, without a graph."""
    raw = raw.detach()
    values = raw.new_empty(*raw.shape[1:], 2)
    for begin in range(0, len(values), BLOCKS_AT_ONCE):
        some = slice(begin, begin + BLOCKS_AT_ONCE)
        values[some, ..., 0], values[some, ..., 1] = activated(raw[:, some], share)
    return values


def slopes_in_place(
    gradient: Float[Tensor, "N 8 8 8 2"], values: Float[Tensor, "N 8 8 8 2"], share: float
) -> Float[Tensor, "N 8 8 8 2"]:
    """The gradient to raw values, in the memory of the one to `values`, which are all that it needs.

    exp(-softplus(raw)) = 1 - sigmoid(raw),   so sigmoid(raw) = 1 - (1 - opacity)^(1 / share)
    """
    for begin in range(0, len(values), BLOCKS_AT_ONCE):
        some = slice(begin, begin + BLOCKS_AT_ONCE)
        opacity, absorbance = values[some].unbind(dim=-1)
        slope = torch.log1p(-opacity).div_(share).expm1_().neg_()
        gradient[some, ..., 0] *= slope.mul_(1.0 - opacity).mul_(share)
        gradient[some, ..., 1] *= (1.0 - absorbance).mul_(absorbance)
    return gradient
