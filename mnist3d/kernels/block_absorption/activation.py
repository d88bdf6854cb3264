"""Opacity of a step and absorbance from raw values, with a gradient that needs the two alone."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def activated(raw: Float[Tensor, "2 ..."], share: float) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Opacity 1 - exp(-share softplus(raw[0])) of one step, and absorbance sigmoid(raw[1]).

    Args:
        raw: any.
        share: step of a ray to the voxel step that raw values are for, > 0.
    """
    return -torch.expm1(F.softplus(raw[0]) * -share), torch.sigmoid(raw[1])


def activated_in_place(raw: Float[Tensor, "2 ..."], share: float) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """`activated`, of which nothing but the results is kept for the gradient: a third of what autograd keeps.

    Gradients:
        To raw, once.
    """
    return _Activated.apply(raw, share)  # type: ignore[return-value]


class _Activated(torch.autograd.Function):
    """exp(-softplus(raw)) is 1 - sigmoid(raw), so sigmoid(raw) = 1 - (1 - opacity)^(1 / share)."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, share: float) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        opacity = F.softplus(raw[0]).mul_(-share).expm1_().neg_()
        absorbance = torch.sigmoid(raw[1])
        ctx.save_for_backward(opacity, absorbance)
        ctx.share = share
        return opacity, absorbance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_opacity: Tensor, to_absorbance: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        opacity, absorbance = ctx.saved_tensors
        to_raw = opacity.new_empty(2, *opacity.shape)
        torch.log1p(-opacity, out=to_raw[0]).div_(ctx.share).expm1_().neg_()
        to_raw[0].mul_(1.0 - opacity).mul_(to_opacity).mul_(ctx.share)
        torch.sub(1.0, absorbance, out=to_raw[1]).mul_(absorbance).mul_(to_absorbance)
        return to_raw, None
